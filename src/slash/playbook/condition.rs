//! What a step may expect of the reply before it.

use serde_json::Value;

/// Something that has to be so of one field of a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Path into the reply, parts divided by dots; empty for all of it.
    pub field: String,
    /// What has to be so.
    pub test: Test,
}

/// What has to be so of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// It is this text, number or truth; an array of so many places.
    Equals(Value),
    /// It is a text with this in it, or something with such a text in it.
    Contains(String),
    /// It is this number or a larger one; an array of so many places or more.
    AtLeast(f64),
    /// It is this number or a smaller one; an array of so many places or fewer.
    AtMost(f64),
}

impl Condition {
    /// What is so, where that is what has to be.
    ///
    /// # Errors
    /// What is so instead, in one line.
    pub fn check(&self, reply: &Value) -> Result<String, String> {
        let name = if self.field.is_empty() { "the reply" } else { self.field.as_str() };
        let found = find(reply, &self.field)
            .map_err(|inside| format!("the reply has no field {name}{}", fields_of(inside)))?;
        let holds = match &self.test {
            Test::Equals(Value::Number(wanted)) => {
                number(found).zip(wanted.as_f64()).is_some_and(|(found, wanted)| found == wanted)
            }
            Test::Equals(wanted) => found == wanted,
            Test::Contains(part) => contains(found, part),
            Test::AtLeast(least) => number(found).is_some_and(|found| found >= *least),
            Test::AtMost(most) => number(found).is_some_and(|found| found <= *most),
        };
        let is = format!("{name} is {}", brief(found));
        match holds {
            true => Ok(is),
            false => Err(format!("{is}, expected {}", self.expected())),
        }
    }

    fn expected(&self) -> String {
        match &self.test {
            Test::Equals(value) => value.to_string(),
            Test::Contains(part) => format!("something that contains {part:?}"),
            Test::AtLeast(number) => format!("at least {number}"),
            Test::AtMost(number) => format!("at most {number}"),
        }
    }
}

/// The field at a path, else what was there where the path led nowhere.
fn find<'a>(reply: &'a Value, path: &str) -> Result<&'a Value, &'a Value> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(reply, |at, part| {
        let inside = match at {
            Value::Array(items) => part.parse::<usize>().ok().and_then(|number| items.get(number)),
            Value::Object(fields) => fields.get(part),
            _ => None,
        };
        inside.ok_or(at)
    })
}

/// A number, or how many places an array has.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Array(items) => Some(items.len() as f64),
        other => other.as_f64(),
    }
}

fn contains(value: &Value, part: &str) -> bool {
    match value {
        Value::String(text) => text.contains(part),
        Value::Array(items) => items.iter().any(|item| contains(item, part)),
        Value::Object(fields) => fields.values().any(|field| contains(field, part)),
        _ => false,
    }
}

/// A value in one line of a bearable length.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(80) {
                Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
                None => text,
            }
        }
    }
}

fn fields_of(reply: &Value) -> String {
    match reply {
        Value::Object(fields) => {
            format!(": there are {}", fields.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!(": there is an array of {}", items.len()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_and_compared() {
        let reply = json!({"hops": [{"address": "b2b2", "rtt_ms": 1.5}, {"address": null}], "reached": true,
                           "status": "delivered", "count": 3});
        let check = |field: &str, test: Test, holds: bool| {
            let condition = Condition { field: field.into(), test };
            let found = condition.check(&reply);
            assert_eq!(found.is_ok(), holds, "{condition:?}: {found:?}");
        };
        check("hops", Test::Equals(json!(2)), true);
        check("hops", Test::AtLeast(3.0), false);
        check("hops", Test::Contains("b2".into()), true);
        check("hops.0.rtt_ms", Test::AtMost(2.0), true);
        check("hops.0.rtt_ms", Test::AtMost(1.0), false);
        check("hops.1.address", Test::Equals(Value::Null), true);
        check("hops.2.address", Test::Contains(String::new()), false);
        check("reached", Test::Equals(json!(true)), true);
        check("status", Test::Equals(json!("delivered")), true);
        check("status", Test::Equals(json!(1)), false);
        check("status", Test::Contains("deliver".into()), true);
        check("count", Test::Equals(json!(3.0)), true);
        check("", Test::Contains("b2b2".into()), true);
    }

    #[test]
    fn a_failed_condition_says_what_is_so() {
        let condition = Condition { field: "hops".into(), test: Test::Equals(json!(3)) };
        assert_eq!(condition.check(&json!({"hops": 2})).unwrap_err(), "hops is 2, expected 3");
        assert_eq!(
            condition.check(&json!({"id": 1, "rtt_ms": 2})).unwrap_err(),
            "the reply has no field hops: there are id, rtt_ms"
        );
        let condition = Condition { field: "hops.0.adress".into(), test: Test::AtMost(1.0) };
        assert_eq!(
            condition.check(&json!({"hops": [{"address": 1}]})).unwrap_err(),
            "the reply has no field hops.0.adress: there are address"
        );
    }
}
