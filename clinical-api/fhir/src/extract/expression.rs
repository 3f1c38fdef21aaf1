//! The part of FHIRPath that search parameters are written in, as a small syntax tree.

/// A union of paths, already without the resource type's name at the head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Union(Vec<Vec<Step>>),
    /// `X.exists() and X != false`: true unless absent or the boolean `false`.
    PresentAndNotFalse(Vec<Step>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    /// `as T`, `.as(T)`, `.ofType(T)`
    As(String),
    /// `.where(resolve() is T)`
    ResolvesTo(String),
    /// `.where(field='value')`
    Where(String, String),
    /// `[n]`
    Index(usize),
}

/// Parses an expression; the error says what was not understood.
pub(crate) fn parse(text: &str) -> Result<Expression, String> {
    if let Some((left, right)) = text.split_once(".exists() and ") {
        let path = right.strip_suffix(" != false").filter(|r| *r == left);
        return match (path, Parser::new(left).union()?) {
            (Some(_), mut paths) if paths.len() == 1 => Ok(Expression::PresentAndNotFalse(paths.remove(0))),
            _ => Err(format!("a condition of another shape: {text}")),
        };
    }
    let mut parser = Parser::new(text);
    let paths = parser.union()?;
    match parser.peek() {
        None => Ok(Expression::Union(paths)),
        Some(_) => Err(format!("left over at {}: {text}", parser.at)),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        self.peek();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(format!("expected {token} at {}: {}", self.at, self.text))
        }
    }

    fn name(&mut self) -> Result<String, String> {
        self.peek();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        if end == 0 {
            return Err(format!("expected a name at {}: {}", self.at, self.text));
        }
        self.at += end;
        Ok(rest.get(..end).unwrap_or("").to_owned())
    }

    fn union(&mut self) -> Result<Vec<Vec<Step>>, String> {
        let mut all = self.term()?;
        while self.eat("|") {
            all.extend(self.term()?);
        }
        Ok(all)
    }

    fn term(&mut self) -> Result<Vec<Vec<Step>>, String> {
        let mut paths = if self.eat("(") {
            let inner = self.union()?;
            self.expect(")")?;
            inner
        } else {
            self.name()?; // the resource type
            vec![Vec::new()]
        };
        let push = |paths: &mut Vec<Vec<Step>>, step: Step| paths.iter_mut().for_each(|p| p.push(step.clone()));
        loop {
            if self.eat(".") {
                let name = self.name()?;
                if self.eat("(") {
                    let step = self.function(&name)?;
                    self.expect(")")?;
                    push(&mut paths, step);
                } else {
                    push(&mut paths, Step::Field(name));
                }
            } else if self.eat("[") {
                let n = self
                    .name()?
                    .parse()
                    .map_err(|_| format!("an index that is no number: {}", self.text))?;
                self.expect("]")?;
                push(&mut paths, Step::Index(n));
            } else if self.eat("as ") {
                let ty = self.name()?;
                push(&mut paths, Step::As(ty));
            } else {
                return Ok(paths);
            }
        }
    }

    fn function(&mut self, name: &str) -> Result<Step, String> {
        match name {
            "as" | "ofType" => Ok(Step::As(self.name()?)),
            "where" if self.eat("resolve()") => {
                self.expect("is ")?;
                Ok(Step::ResolvesTo(self.name()?))
            }
            "where" => {
                let field = self.name()?;
                self.expect("=")?;
                self.expect("'")?;
                let rest = self.rest();
                let end = rest.find('\'').ok_or_else(|| format!("an open quote: {}", self.text))?;
                let value = rest.get(..end).unwrap_or("").to_owned();
                self.at += end + 1;
                Ok(Step::Where(field, value))
            }
            other => Err(format!("the function {other}: {}", self.text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_shapes_in_use() {
        let f = |n: &str| Step::Field(n.to_owned());
        assert_eq!(
            parse("(Observation.value as CodeableConcept).text | Observation.code.text"),
            Ok(Expression::Union(vec![
                vec![f("value"), Step::As("CodeableConcept".into()), f("text")],
                vec![f("code"), f("text")]
            ]))
        );
        assert_eq!(
            parse("Patient.telecom.where(system='phone')"),
            Ok(Expression::Union(vec![vec![
                f("telecom"),
                Step::Where("system".into(), "phone".into())
            ]]))
        );
        assert_eq!(
            parse("Bundle.entry[0].resource"),
            Ok(Expression::Union(vec![vec![f("entry"), Step::Index(0), f("resource")]]))
        );
        assert!(parse("Patient.name.select(given)").is_err());
        assert!(parse("Patient.name) | x").is_err());
    }
}
