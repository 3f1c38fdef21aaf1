//! Encryption of an archive with a passphrase, in the age format (age-encryption.org/v1), so that whoever has the file and
//! the passphrase opens it with a tool that is not ours: `age -d`. The primitives are aws-lc-rs's, the key derivation scrypt.

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf, hmac,
};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use medtech_kernel::id;
use std::io::{self, Write};

/// Bytes of a chunk of the payload.
const CHUNK: usize = 64 * 1024;
/// Work of the key derivation: 2 to this power, about a second and 256 MiB; age's own choice.
pub const WORK: u8 = 18;

/// What is written to it comes out encrypted. [`Sealed::finish`] writes the last chunk: without it the file is refused.
pub struct Sealed<W: Write> {
    out: W,
    key: LessSafeKey,
    counter: u64,
    chunk: Vec<u8>,
}

fn failed<E>(_: E) -> io::Error {
    io::Error::other("encryption failed")
}

fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> io::Result<[u8; 32]> {
    let mut out = [0_u8; 32];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    prk.expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .map_err(failed)?;
    Ok(out)
}

fn cipher(key: &[u8]) -> io::Result<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .map(LessSafeKey::new)
        .map_err(failed)
}

impl<W: Write> Sealed<W> {
    pub fn new(out: W, passphrase: &str, work: u8) -> io::Result<Self> {
        Self::with(out, passphrase, work, id::random(), id::random(), id::random())
    }

    fn with(
        mut out: W,
        passphrase: &str,
        work: u8,
        file_key: [u8; 16],
        salt: [u8; 16],
        nonce: [u8; 16],
    ) -> io::Result<Self> {
        // The file key, wrapped under a key of the passphrase.
        let mut labelled = b"age-encryption.org/v1/scrypt".to_vec();
        labelled.extend_from_slice(&salt);
        let params = scrypt::Params::new(work, 8, 1).map_err(failed)?;
        let mut wrap = [0_u8; 32];
        scrypt::scrypt(passphrase.as_bytes(), &labelled, &params, &mut wrap).map_err(failed)?;
        let mut wrapped = file_key.to_vec();
        let zero = Nonce::assume_unique_for_key([0; 12]);
        cipher(&wrap)?
            .seal_in_place_append_tag(zero, Aad::empty(), &mut wrapped)
            .map_err(failed)?;
        let mut header = format!(
            "age-encryption.org/v1\n-> scrypt {} {work}\n{}\n---",
            BASE64.encode(salt),
            BASE64.encode(wrapped)
        );
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &derive(&file_key, &[], b"header")?);
        let tag = hmac::sign(&mac, header.as_bytes());
        header.push_str(&format!(" {}\n", BASE64.encode(tag)));
        out.write_all(header.as_bytes())?;
        out.write_all(&nonce)?;
        Ok(Self {
            out,
            key: cipher(&derive(&file_key, &nonce, b"payload")?)?,
            counter: 0,
            chunk: Vec::with_capacity(CHUNK + 16),
        })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        // STREAM: an 11-byte counter and a byte that tells the last chunk.
        let mut nonce = [0_u8; 12];
        let [_, _, _, counter @ .., end] = &mut nonce;
        counter.copy_from_slice(&self.counter.to_be_bytes());
        *end = u8::from(last);
        self.counter += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.chunk)
            .map_err(failed)?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// Writes the last chunk and gives back what is written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until there is more, since the last one is sealed otherwise, and is empty only alone.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.seal(false)?;
        }
        let (now, _) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
        self.chunk.extend_from_slice(now);
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens what was sealed, by the format's own words and not by the code above.
    fn open(bytes: &[u8], passphrase: &str) -> Option<Vec<u8>> {
        let end = bytes.windows(5).position(|w| w == b"\n--- ")? + 5;
        let line = end + bytes[end..].iter().position(|b| *b == b'\n')?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("age-encryption.org/v1"));
        let mut stanza = lines.next()?.split(' ').skip(2);
        let salt = BASE64.decode(stanza.next()?).ok()?;
        let params = scrypt::Params::new(stanza.next()?.parse().ok()?, 8, 1).ok()?;
        let mut wrapped = BASE64.decode(lines.next()?).ok()?;
        let mut wrap = [0; 32];
        scrypt::scrypt(
            passphrase.as_bytes(),
            &[b"age-encryption.org/v1/scrypt".as_slice(), &salt].concat(),
            &params,
            &mut wrap,
        )
        .ok()?;
        let zero = || Nonce::assume_unique_for_key([0; 12]);
        let file_key = cipher(&wrap)
            .ok()?
            .open_in_place(zero(), Aad::empty(), &mut wrapped)
            .ok()?
            .to_vec();
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &derive(&file_key, &[], b"header").ok()?);
        hmac::verify(&mac, &bytes[..end - 1], &BASE64.decode(&bytes[end..line]).ok()?).ok()?;
        let (nonce, payload) = bytes[line + 1..].split_at(16);
        let key = cipher(&derive(&file_key, nonce, b"payload").ok()?).ok()?;
        let mut plain = Vec::new();
        let chunks: Vec<&[u8]> = payload.chunks(CHUNK + 16).collect();
        for (i, chunk) in chunks.iter().enumerate() {
            let mut nonce = [0; 12];
            nonce[3..11].copy_from_slice(&(i as u64).to_be_bytes());
            nonce[11] = u8::from(i + 1 == chunks.len());
            let mut chunk = chunk.to_vec();
            plain.extend_from_slice(
                key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut chunk)
                    .ok()?,
            );
        }
        Some(plain)
    }

    #[test]
    fn what_is_sealed_opens_with_the_passphrase_and_with_nothing_else() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut sealed = Sealed::new(Vec::new(), "a good passphrase", 4).unwrap();
            for part in plain.chunks(1000) {
                sealed.write_all(part).unwrap();
            }
            let bytes = sealed.finish().unwrap();
            assert_eq!(open(&bytes, "a good passphrase").as_ref(), Some(&plain), "{size}");
            assert_eq!(open(&bytes, "another passphrase"), None);
            for at in [25, bytes.len() - 1, bytes.len() - 10] {
                let mut bent = bytes.clone();
                bent[at] ^= 1;
                assert!(
                    std::panic::catch_unwind(|| open(&bent, "a good passphrase")).map_or(true, |o| o.is_none()),
                    "{at}"
                );
            }
            if size > CHUNK {
                let cut = bytes.len() - (size - (size - 1) / CHUNK * CHUNK) - 16;
                assert_eq!(open(&bytes[..cut], "a good passphrase"), None, "a cut tail is seen");
            }
        }
    }
}
