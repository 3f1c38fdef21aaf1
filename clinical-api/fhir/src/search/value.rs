//! Values of search parameters, by kind (R4 search.html#ptypes).

use super::{
    Clause,
    clause::{Address, Amount, Compare, Text},
    parse::{Context, refuse, unsupported},
    url::{split, unescape},
};
use crate::{
    definitions::{Definitions, Kind, Param, ResourceDef},
    extract::{LONGEST, SEPARATOR, fold, hash, local_reference, point, string_row},
    index::clip,
    outcome::Failure,
    store::{Veil, resolve},
};
use medtech_kernel::Val;

/// Alternatives in one value.
const MOST_ALTERNATIVES: usize = 500;

const CODES: &str = "SELECT id FROM fhir_code WHERE tenant = $1 AND code = $2";
const CODE: &str = "SELECT id FROM fhir_code WHERE tenant = $1 AND code = $2 AND sys = $3";

pub(super) async fn clause(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    param: &Param,
    modifier: Option<&str>,
    text: &str,
) -> Result<Clause, Failure> {
    let values = split(text, ',');
    if values.len() > MOST_ALTERNATIVES {
        return Err(refuse(format!("at most {MOST_ALTERNATIVES} values at once")));
    }
    if values.iter().any(String::is_empty) {
        return Err(refuse(format!("{} has an empty value", param.code)));
    }
    let no_modifier = || match modifier {
        None => Ok(()),
        Some(m) => Err(unsupported(format!("{}:{m:.40}", param.code))),
    };
    match (param.kind, param.code) {
        (_, "_id") => {
            no_modifier()?;
            let mut rids = Vec::new();
            for value in &values {
                rids.extend(resolve(context.exec, context.shelf, def, value).await?);
            }
            Ok(Clause::Ids { ty: def.number, rids })
        }
        (Kind::Token, _) => match modifier {
            None => tokens(context, def, param, &values).await,
            Some("not") => Ok(Clause::Not(Box::new(tokens(context, def, param, &values).await?))),
            Some(m) => Err(unsupported(format!("{}:{m:.40}", param.code))),
        },
        (Kind::Reference, _) => references(context, param, modifier, &values).await,
        (Kind::Date, code) => {
            no_modifier()?;
            let any = values.iter().map(|v| date(v)).collect::<Result<_, _>>()?;
            let main = def.main_date == Some(code) && def.plan().is_single(param.k);
            Ok(Clause::Date { k: param.k, main, any })
        }
        (Kind::String, _) => {
            let veil = context.shelf.veil.as_ref().filter(|_| Veil::covers(def));
            let one = |v: &String| match (string(v, modifier)?, veil) {
                (plain, None) => Ok(plain),
                // A blinded row has no other form than its own.
                (Text::Prefix(p), Some(veil)) if !p.is_empty() => Ok(Text::Exact(veil.beginning(param.k, &p)?)),
                (Text::Prefix(p), Some(_)) => Ok(Text::Prefix(p)),
                (Text::Exact(row), Some(veil)) => Ok(Text::Exact(veil.exact(param.k, &row)?)),
                (Text::Contains(_), Some(_)) => Err(unsupported(format!(
                    "{}:contains, where the texts of records are sealed",
                    param.code
                ))),
            };
            let any = values.iter().map(one).collect::<Result<_, Failure>>()?;
            Ok(Clause::String { k: param.k, any })
        }
        (Kind::Quantity | Kind::Number, _) => {
            no_modifier()?;
            let mut any = Vec::new();
            for value in &values {
                amounts(context, param, value, &mut any).await?;
            }
            Ok(if any.is_empty() {
                Clause::Nothing
            } else {
                Clause::Quantity { k: param.k, any }
            })
        }
        (Kind::Uri, _) => {
            let clean = |v: &String| unescape(v).chars().take(LONGEST * 2).collect::<String>();
            let any = match modifier {
                None => values.iter().map(|v| Address::Exact(clean(v))).collect(),
                Some("below") => values.iter().map(|v| Address::Below(clean(v))).collect(),
                Some(m) => return Err(unsupported(format!("{}:{m:.40}", param.code))),
            };
            Ok(Clause::Uri { k: param.k, any })
        }
        (Kind::Composite | Kind::Special, _) => Err(unsupported(format!("search by {}", param.code))),
    }
}

/// `code`, `system|code`, `|code`, `system|`: a code may be interned or hashed, so both are asked for.
async fn tokens(
    context: &mut Context<'_, '_>,
    def: &'static ResourceDef,
    param: &Param,
    values: &[String],
) -> Result<Clause, Failure> {
    let (mut codes, mut systems) = (Vec::new(), Vec::new());
    for value in values {
        let mut parts = split(value, '|').into_iter().map(|p| unescape(&p));
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        if parts.next().is_some() {
            return Err(refuse(format!("{:.60} is not a token: system|code", value)));
        }
        let (hashed, coded) = (def.plan().holds_hashes(param.k), def.plan().holds_codes(param.k));
        match second {
            None => {
                if hashed {
                    let value = if param.folds_case() {
                        first.to_lowercase()
                    } else {
                        first.clone()
                    };
                    codes.push(context.shelf.number(hash(&["value", &value]))?);
                }
                if coded {
                    for row in context.exec.query(CODES, &[clip(&first).into()]).await? {
                        codes.push(row.i64(0)?);
                    }
                }
            }
            Some(code) if code.is_empty() => {
                if hashed {
                    codes.push(context.shelf.number(hash(&["system", &first]))?);
                }
                if coded {
                    systems.push(clip(&first).to_owned());
                }
            }
            Some(code) => {
                if hashed {
                    let code = if param.folds_case() {
                        code.to_lowercase()
                    } else {
                        code.clone()
                    };
                    codes.push(context.shelf.number(hash(&["both", &first, &code]))?);
                }
                if coded {
                    codes.extend(interned(context, &code, &first).await?);
                }
            }
        }
    }
    codes.sort_unstable();
    codes.dedup();
    Ok(if codes.is_empty() && systems.is_empty() {
        Clause::Nothing
    } else {
        Clause::Token {
            k: param.k,
            codes,
            systems,
        }
    })
}

async fn interned(context: &mut Context<'_, '_>, code: &str, system: &str) -> Result<Option<i64>, Failure> {
    if let Some(id) = context.shelf.known_code(code, system) {
        return Ok(Some(id));
    }
    let args: [Val; 2] = [clip(code).into(), clip(system).into()];
    Ok(context
        .exec
        .query_opt(CODE, &args)
        .await?
        .map(|row| row.i64(0))
        .transpose()?)
}

/// `Type/id`, `id`, an absolute address, `:Type=id`, `:identifier=system|value`.
async fn references(
    context: &mut Context<'_, '_>,
    param: &Param,
    modifier: Option<&str>,
    values: &[String],
) -> Result<Clause, Failure> {
    if modifier == Some("identifier") {
        let mut codes = Vec::new();
        for value in values {
            let parts: Vec<String> = split(value, '|').iter().map(|p| unescape(p)).collect();
            codes.push(context.shelf.number(match parts.as_slice() {
                [value] => hash(&["value", value]),
                [system, value] if value.is_empty() => hash(&["system", system]),
                [system, value] => hash(&["both", system, value]),
                _ => return Err(refuse("an identifier is system|value")),
            })?);
        }
        return Ok(Clause::Token {
            k: param.k,
            codes,
            systems: Vec::new(),
        });
    }
    let all = Definitions::get();
    let only = match modifier {
        None => None,
        Some(ty) => Some(
            all.resource(ty)
                .ok_or_else(|| unsupported(format!("{}:{ty:.40}", param.code)))?,
        ),
    };
    let (mut targets, mut patients) = (Vec::new(), Vec::new());
    for value in values {
        let value = unescape(value);
        if let Some((ty, id)) = local_reference(&value, context.base) {
            if only.is_some_and(|o| o.name != ty) {
                continue;
            }
            let Some(def) = all.resource(ty) else { continue };
            if let Some(rid) = resolve(context.exec, context.shelf, def, &id).await? {
                targets.push(rid);
                patients.push((ty == "Patient").then_some(rid));
            }
        } else if crate::validate::is_id(&value) {
            let candidates: Vec<&'static ResourceDef> = match only {
                Some(def) => vec![def],
                None if param.targets.is_empty() => all.resources().iter().collect(),
                None => param.targets.iter().filter_map(|t| all.resource(t)).collect(),
            };
            let single = candidates.len() == 1;
            for def in candidates {
                if let Some(rid) = resolve(context.exec, context.shelf, def, &value).await? {
                    targets.push(rid);
                    patients.push((single && def.name == "Patient").then_some(rid));
                }
            }
        } else {
            targets.push(hash(&["url", &value]));
            patients.push(None);
        }
    }
    let patient = match patients.as_slice() {
        [one] => *one,
        _ => None,
    };
    targets.sort_unstable();
    targets.dedup();
    Ok(if targets.is_empty() {
        Clause::Nothing
    } else {
        Clause::Reference {
            k: param.k,
            targets,
            patient,
        }
    })
}

fn prefix(text: &str) -> Result<(Compare, &str), Failure> {
    let Some(head) = text.get(..2).filter(|h| h.bytes().all(|b| b.is_ascii_lowercase())) else {
        return Ok((Compare::Eq, text));
    };
    let rest = text.get(2..).unwrap_or("");
    Ok((
        match head {
            "eq" => Compare::Eq,
            "ne" => Compare::Ne,
            "gt" => Compare::Gt,
            "lt" => Compare::Lt,
            "ge" => Compare::Ge,
            "le" => Compare::Le,
            "sa" => Compare::StartsAfter,
            "eb" => Compare::EndsBefore,
            other => return Err(unsupported(format!("the prefix {other}"))),
        },
        rest,
    ))
}

fn date(text: &str) -> Result<(Compare, i64, i64), Failure> {
    let (compare, rest) = prefix(text)?;
    // A plus sign that arrived unescaped became a space.
    let range = point(&rest.replace(' ', "+")).ok_or_else(|| refuse(format!("{rest:.40} is not a date")))?;
    Ok((compare, range.lo, range.hi))
}

fn string(text: &str, modifier: Option<&str>) -> Result<Text, Failure> {
    let text = unescape(text);
    let folded = || -> String {
        fold(&text)
            .trim()
            .chars()
            .filter(|c| *c > SEPARATOR)
            .take(LONGEST)
            .collect()
    };
    match modifier {
        None => Ok(Text::Prefix(folded())),
        Some("contains") => Ok(Text::Contains(folded())),
        Some("exact") => Ok(Text::Exact(string_row(&text))),
        Some(m) => Err(unsupported(format!("the modifier :{m:.40} on a string"))),
    }
}

/// `5.4`, `gt5.4|system|code`, `5.4||unit`. Equality spans the digits given: 5.4 is from 5.35 to 5.45.
async fn amounts(
    context: &mut Context<'_, '_>,
    param: &Param,
    text: &str,
    any: &mut Vec<Amount>,
) -> Result<(), Failure> {
    let (compare, rest) = prefix(text)?;
    let parts: Vec<String> = split(rest, '|').iter().map(|p| unescape(p)).collect();
    let digits = parts.first().map_or("", String::as_str);
    let plain = !digits.is_empty()
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    let value: f64 = digits
        .parse()
        .ok()
        .filter(|v: &f64| plain && v.is_finite())
        .ok_or_else(|| refuse(format!("{digits:.40} is not a number")))?;
    let half = half_of_last_digit(digits);
    let make = |unit: i64| Amount {
        compare,
        unit,
        value,
        lo: value - half,
        hi: value + half,
    };
    match (param.kind, parts.as_slice()) {
        (_, [_]) => any.push(make(0)),
        (Kind::Quantity, [_, system, code]) if system.is_empty() => {
            for row in context.exec.query(CODES, &[clip(code).into()]).await? {
                any.push(make(row.i64(0)?));
            }
        }
        (Kind::Quantity, [_, system, code]) => any.extend(interned(context, code, system).await?.map(make)),
        _ => return Err(refuse(format!("{rest:.60} is not number|system|code"))),
    }
    Ok(())
}

fn half_of_last_digit(digits: &str) -> f64 {
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let decimals = mantissa.split_once('.').map_or(0, |(_, d)| d.len());
    let exponent: i32 = exponent.parse().unwrap_or(0);
    0.5 * 10_f64.powi(exponent.saturating_sub(i32::try_from(decimals).unwrap_or(0)))
}

impl Param {
    /// Contact points are compared without case.
    fn folds_case(&self) -> bool {
        matches!(self.code, "phone" | "email" | "telecom")
    }
}
