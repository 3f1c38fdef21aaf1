//! The words of mails about an account: a sign-in link, an invitation, a change of what one signs in with. Pure.

use crate::model::Letter;
use medtech_kernel::clock::Millis;
use serde::Deserialize;

/// Body of the durable event `account.mail`, whose key is the subject.
#[derive(Debug, Deserialize)]
pub(crate) struct AccountMail {
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) letter: AccountLetter,
    /// The site's own address, without a path; absent: the installation's.
    #[serde(default)]
    pub(crate) origin: Option<String>,
    /// Where it points to, with its secret behind `#`.
    #[serde(default)]
    pub(crate) path: Option<String>,
    /// The language to write in; absent: the one known of the person.
    #[serde(default)]
    pub(crate) language: Option<String>,
    /// When that way closes, where the letter is to say so (Unix milliseconds).
    #[serde(default)]
    pub(crate) until_at: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccountLetter {
    SignInLink,
    SignInLinkRefused,
    PasswordReset,
    SecurityChanged,
    Invitation,
    AddressConfirm,
    AddressTaken,
    AddressAsked,
    AddressChanged,
    AddressMoved,
}

const ALL: [AccountLetter; 10] = [
    AccountLetter::SignInLink,
    AccountLetter::SignInLinkRefused,
    AccountLetter::PasswordReset,
    AccountLetter::SecurityChanged,
    AccountLetter::Invitation,
    AccountLetter::AddressConfirm,
    AccountLetter::AddressTaken,
    AccountLetter::AddressAsked,
    AccountLetter::AddressChanged,
    AccountLetter::AddressMoved,
];

impl AccountLetter {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SignInLink => "sign_in_link",
            Self::SignInLinkRefused => "sign_in_link_refused",
            Self::PasswordReset => "password_reset",
            Self::SecurityChanged => "security_changed",
            Self::Invitation => "invitation",
            Self::AddressConfirm => "address_confirm",
            Self::AddressTaken => "address_taken",
            Self::AddressAsked => "address_asked",
            Self::AddressChanged => "address_changed",
            Self::AddressMoved => "address_moved",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        ALL.into_iter().find(|letter| letter.name() == name)
    }

    /// `until` is the last day on which `url` opens.
    pub(crate) fn compose(self, language: &str, clinic: &str, name: &str, url: &str, until: Option<&str>) -> Letter {
        let primary = language.split(['-', '_']).next().unwrap_or_default();
        let hello = match primary {
            "de" => "Guten Tag",
            "es" => "Hola",
            "fr" => "Bonjour",
            _ => "Hello",
        };
        let (subject, text, reason) = self.words(primary);
        let once = match primary {
            "de" => "Der Link gilt einmal, bis zum",
            "es" => "El enlace sirve una vez, hasta el",
            "fr" => "Le lien est valable une fois, jusqu'au",
            _ => "The link works once, until",
        };
        let reason = match until {
            Some(day) => format!("{once} {day}. {reason}"),
            None => reason.to_owned(),
        };
        Letter::put_together(clinic, name, subject, hello, text, url, &reason)
    }

    /// Subject, text before the address, text after it.
    fn words(self, language: &str) -> (&'static str, &'static str, &'static str) {
        match (self, language) {
            (Self::SignInLink, "de") => (
                "Ihr Anmeldelink",
                "mit diesem Link melden Sie sich an. Er gilt zehn Minuten, einmal, und nur in dem Browser, in dem Sie ihn angefordert haben:",
                "Sie haben ihn nicht angefordert? Dann ist nichts zu tun. Geben Sie ihn nicht weiter.",
            ),
            (Self::SignInLink, "es") => (
                "Su enlace de acceso",
                "con este enlace puede iniciar sesión. Sirve diez minutos, una vez, y solo en el navegador en que lo pidió:",
                "¿No lo ha pedido? No tiene que hacer nada. No lo comparta con nadie.",
            ),
            (Self::SignInLink, "fr") => (
                "Votre lien de connexion",
                "ce lien vous connecte. Il est valable dix minutes, une fois, et seulement dans le navigateur où vous l'avez demandé :",
                "Vous ne l'avez pas demandé ? Il n'y a rien à faire. Ne le transmettez à personne.",
            ),
            (Self::SignInLink, _) => (
                "Your sign-in link",
                "this link signs you in. It works for ten minutes, once, and only in the browser where you asked for it:",
                "You did not ask for it? Then there is nothing to do. Do not pass it on.",
            ),
            (Self::SignInLinkRefused, "de") => (
                "Anmeldung",
                "jemand hat einen Anmeldelink für Ihr Konto angefordert. Ihr Konto meldet sich mit Passkey oder Passwort an:",
                "Waren Sie es nicht? Dann ist nichts zu tun.",
            ),
            (Self::SignInLinkRefused, "es") => (
                "Inicio de sesión",
                "alguien pidió un enlace de acceso para su cuenta. Su cuenta inicia sesión con llave de acceso o contraseña:",
                "¿No ha sido usted? No tiene que hacer nada.",
            ),
            (Self::SignInLinkRefused, "fr") => (
                "Connexion",
                "quelqu'un a demandé un lien de connexion pour votre compte. Votre compte se connecte avec une clé d'accès ou un mot de passe :",
                "Ce n'était pas vous ? Il n'y a rien à faire.",
            ),
            (Self::SignInLinkRefused, _) => (
                "Signing in",
                "somebody asked for a sign-in link for your account. Your account signs in with a passkey or a password:",
                "It was not you? Then there is nothing to do.",
            ),
            (Self::PasswordReset, "de") => (
                "Ein neues Passwort",
                "unter diesem Link wählen Sie ein neues Passwort. Er gilt zehn Minuten, einmal, und nur in dem Browser, in dem Sie ihn angefordert haben:",
                "Sie haben ihn nicht angefordert? Dann ist nichts zu tun: Ihr Passwort bleibt, wie es ist.",
            ),
            (Self::PasswordReset, "es") => (
                "Una contraseña nueva",
                "con este enlace puede elegir una contraseña nueva. Sirve diez minutos, una vez, y solo en el navegador en que lo pidió:",
                "¿No lo ha pedido? No tiene que hacer nada: su contraseña sigue siendo la misma.",
            ),
            (Self::PasswordReset, "fr") => (
                "Un nouveau mot de passe",
                "ce lien permet de choisir un nouveau mot de passe. Il est valable dix minutes, une fois, et seulement dans le navigateur où vous l'avez demandé :",
                "Vous ne l'avez pas demandé ? Il n'y a rien à faire : votre mot de passe reste le même.",
            ),
            (Self::PasswordReset, _) => (
                "A new password",
                "with this link you choose a new password. It works for ten minutes, once, and only in the browser where you asked for it:",
                "You did not ask for it? Then there is nothing to do: your password stays as it is.",
            ),
            (Self::SecurityChanged, "de") => (
                "Ihre Anmeldung wurde geändert",
                "womit Sie sich anmelden, wurde soeben geändert. Unter Sicherheit sehen Sie, was es war:",
                "Waren Sie es nicht? Dann melden Sie sich bitte sofort bei Ihrer Klinik.",
            ),
            (Self::SecurityChanged, "es") => (
                "Su acceso ha cambiado",
                "se acaba de cambiar aquello con lo que inicia sesión. En Seguridad puede ver qué fue:",
                "¿No ha sido usted? Avise enseguida a su clínica.",
            ),
            (Self::SecurityChanged, "fr") => (
                "Votre connexion a été modifiée",
                "ce avec quoi vous vous connectez vient d'être modifié. La page Sécurité dit de quoi il s'agit :",
                "Ce n'était pas vous ? Prévenez tout de suite votre clinique.",
            ),
            (Self::SecurityChanged, _) => (
                "Your sign-in was changed",
                "what you sign in with was changed just now. Under Security you see what it was:",
                "It was not you? Then please tell your clinic at once.",
            ),
            (Self::Invitation, "de") => (
                "Ihr Zugang",
                "Sie sind eingeladen. Unter diesem Link wählen Sie, womit Sie sich anmelden:",
                "Sie haben das nicht erwartet? Dann ist nichts zu tun: ohne den Link kommt niemand hinein.",
            ),
            (Self::Invitation, "es") => (
                "Su acceso",
                "le invitan a entrar. Abra este enlace para elegir cómo iniciará sesión:",
                "Si no esperaba este mensaje, no haga nada: sin el enlace nadie puede entrar.",
            ),
            (Self::Invitation, "fr") => (
                "Votre accès",
                "vous êtes invité. Ouvrez ce lien pour choisir comment vous vous connecterez :",
                "Vous ne vous y attendiez pas ? Il n'y a rien à faire : sans le lien, personne n'entre.",
            ),
            (Self::Invitation, _) => (
                "Your access",
                "you have been invited to come in. Open this link to choose how you will sign in:",
                "If you did not expect this message, do nothing: without the link nobody gets in.",
            ),
            (Self::AddressConfirm, "de") => (
                "Ihre neue E-Mail-Adresse",
                "mit diesem Link wird dies die Adresse Ihres Kontos. Er gilt zehn Minuten, einmal, und nur in dem Browser, in dem Sie die Änderung begonnen haben:",
                "Sie haben das nicht begonnen? Dann ist nichts zu tun: ohne den Link ändert sich nichts.",
            ),
            (Self::AddressConfirm, "es") => (
                "Su nueva dirección de correo",
                "con este enlace esta pasa a ser la dirección de su cuenta. Sirve diez minutos, una vez, y solo en el navegador en que empezó el cambio:",
                "¿No lo ha empezado usted? No tiene que hacer nada: sin el enlace no cambia nada.",
            ),
            (Self::AddressConfirm, "fr") => (
                "Votre nouvelle adresse e-mail",
                "ce lien fait de cette adresse celle de votre compte. Il est valable dix minutes, une fois, et seulement dans le navigateur où vous avez commencé le changement :",
                "Ce n'était pas vous ? Il n'y a rien à faire : sans le lien, rien ne change.",
            ),
            (Self::AddressConfirm, _) => (
                "Your new e-mail address",
                "this link makes this the address of your account. It works for ten minutes, once, and only in the browser where you began the change:",
                "You did not begin it? Then there is nothing to do: without the link nothing changes.",
            ),
            (Self::AddressTaken, "de") => (
                "Ihre E-Mail-Adresse",
                "jemand wollte diese Adresse für ein anderes Konto. Sie ist bereits die Ihres Kontos, und nichts hat sich geändert:",
                "Waren Sie es nicht? Dann ist nichts zu tun.",
            ),
            (Self::AddressTaken, "es") => (
                "Su dirección de correo",
                "alguien quiso esta dirección para otra cuenta. Ya es la de su cuenta, y nada ha cambiado:",
                "¿No ha sido usted? No tiene que hacer nada.",
            ),
            (Self::AddressTaken, "fr") => (
                "Votre adresse e-mail",
                "quelqu'un voulait cette adresse pour un autre compte. Elle est déjà celle du vôtre, et rien n'a changé :",
                "Ce n'était pas vous ? Il n'y a rien à faire.",
            ),
            (Self::AddressTaken, _) => (
                "Your e-mail address",
                "somebody wanted this address for another account. It is your account's already, and nothing has changed:",
                "It was not you? Then there is nothing to do.",
            ),
            (Self::AddressAsked, "de") => (
                "Eine andere E-Mail-Adresse für Ihr Konto",
                "für Ihr Konto wurde eine andere E-Mail-Adresse angegeben. Noch gilt diese. Waren Sie es nicht, dann nehmen Sie es hier zurück; alle Sitzungen enden dann:",
                "Waren Sie es? Dann ist hier nichts zu tun.",
            ),
            (Self::AddressAsked, "es") => (
                "Otra dirección de correo para su cuenta",
                "se ha indicado otra dirección de correo para su cuenta. Todavía vale esta. Si no ha sido usted, anúlelo aquí; entonces terminan todas las sesiones:",
                "¿Ha sido usted? Aquí no tiene que hacer nada.",
            ),
            (Self::AddressAsked, "fr") => (
                "Une autre adresse e-mail pour votre compte",
                "une autre adresse e-mail a été indiquée pour votre compte. Celle-ci vaut encore. Si ce n'était pas vous, annulez ici ; toutes les sessions prendront fin :",
                "C'était vous ? Il n'y a rien à faire ici.",
            ),
            (Self::AddressAsked, _) => (
                "Another e-mail address for your account",
                "another e-mail address was given for your account. This one still holds. If it was not you, take it back here; every session then ends:",
                "It was you? Then there is nothing to do here.",
            ),
            (Self::AddressChanged, "de") => (
                "Ihre E-Mail-Adresse wurde geändert",
                "Ihr Konto hat jetzt eine andere E-Mail-Adresse als diese. Waren Sie es nicht, dann nehmen Sie es innerhalb von drei Tagen hier zurück; alle Sitzungen enden dann:",
                "Waren Sie es? Dann ist nichts zu tun.",
            ),
            (Self::AddressChanged, "es") => (
                "Su dirección de correo ha cambiado",
                "su cuenta tiene ahora otra dirección de correo. Si no ha sido usted, anúlelo aquí en un plazo de tres días; entonces terminan todas las sesiones:",
                "¿Ha sido usted? No tiene que hacer nada.",
            ),
            (Self::AddressChanged, "fr") => (
                "Votre adresse e-mail a été changée",
                "votre compte a maintenant une autre adresse e-mail que celle-ci. Si ce n'était pas vous, annulez ici dans les trois jours ; toutes les sessions prendront fin :",
                "C'était vous ? Il n'y a rien à faire.",
            ),
            (Self::AddressChanged, _) => (
                "Your e-mail address was changed",
                "your account now has another e-mail address than this one. If it was not you, take it back here within three days; every session then ends:",
                "It was you? Then there is nothing to do.",
            ),
            (Self::AddressMoved, "de") => (
                "Ihre Klinik hat Ihre E-Mail-Adresse geändert",
                "Ihre Klinik hat die E-Mail-Adresse Ihres Kontos geändert. Die alte und die neue bekommen diese Nachricht; mit der neuen melden Sie sich an:",
                "Sie haben das nicht erwartet? Dann melden Sie sich bitte sofort bei Ihrer Klinik.",
            ),
            (Self::AddressMoved, "es") => (
                "Su clínica ha cambiado su dirección de correo",
                "su clínica ha cambiado la dirección de correo de su cuenta. Este mensaje va a la anterior y a la nueva; con la nueva inicia sesión:",
                "¿No lo esperaba? Avise enseguida a su clínica.",
            ),
            (Self::AddressMoved, "fr") => (
                "Votre clinique a changé votre adresse e-mail",
                "votre clinique a changé l'adresse e-mail de votre compte. L'ancienne et la nouvelle reçoivent ce message ; vous vous connectez avec la nouvelle :",
                "Vous ne vous y attendiez pas ? Prévenez tout de suite votre clinique.",
            ),
            (Self::AddressMoved, _) => (
                "Your clinic changed your e-mail address",
                "your clinic changed the e-mail address of your account. The old one and the new one get this message; you sign in with the new one:",
                "You did not expect it? Then please tell your clinic at once.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_has_its_words_and_its_way_in_every_language() {
        let mut subjects = std::collections::HashSet::new();
        for letter in ALL {
            assert_eq!(AccountLetter::parse(letter.name()), Some(letter));
            for language in ["en", "de-CH", "es", "fr"] {
                let mail = letter.compose(
                    language,
                    "North",
                    "Anna",
                    "https://n.example/enter#x",
                    Some("2026-03-09"),
                );
                assert!(mail.body.contains(" 2026-03-09. "), "{}", mail.body);
                assert!(mail.body.contains("\r\nhttps://n.example/enter#x\r\n"), "{}", mail.body);
                assert!(subjects.insert(mail.subject), "{letter:?} {language}");
            }
        }
        assert_eq!(AccountLetter::parse("notification"), None);
    }
}
