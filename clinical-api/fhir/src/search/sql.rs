//! A statement under construction. Values go into arguments, never into the text.

use medtech_kernel::Val;

#[derive(Default)]
pub(crate) struct Sql {
    pub(super) args: Vec<Val>,
}

impl Sql {
    /// The mark of a new argument; `$1` is the tenant's.
    pub(super) fn arg(&mut self, value: impl Into<Val>) -> String {
        self.args.push(value.into());
        format!("${}", self.args.len() + 1)
    }

    /// `column = $n` or `column IN ($n, ..)`; an empty list fits nothing.
    pub(super) fn list(&mut self, column: &str, values: &[i64]) -> String {
        match values {
            [] => "1 = 0".to_owned(),
            [one] => format!("{column} = {}", self.arg(*one)),
            many => {
                let marks: Vec<String> = many.iter().map(|v| self.arg(*v)).collect();
                format!("{column} IN ({})", marks.join(", "))
            }
        }
    }
}
