//! From what `cel` read to a rule that fits the fields.

use std::collections::BTreeMap;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};

use super::{
    NoRule,
    functions::Function,
    node::{Node, Operator, Type},
};
use crate::entity::{Field, Kind, Value, limits, words};

/// A part of a rule, and what its value is.
type Typed = (Node, Type);

pub(super) fn compile(
    expression: &IdedExpr,
    fields: &BTreeMap<String, Field>,
) -> Result<Typed, NoRule> {
    Compiler { fields }.part(&expression.expr, limits::RULE_BYTES_MAX)
}

struct Compiler<'a> {
    fields: &'a BTreeMap<String, Field>,
}

impl Compiler<'_> {
    /// `room` is how many levels more there may be: no rule has as many as it has characters.
    fn part(&self, expression: &Expr, room: usize) -> Result<Typed, NoRule> {
        let Some(room) = room.checked_sub(1) else {
            return Err(NoRule::new("it is too deep", "write several rules"));
        };
        match expression {
            Expr::Literal(literal) => constant(literal),
            Expr::Select(select) if select.test => self.has(select),
            Expr::Ident(_) | Expr::Select(_) => self.field(expression),
            Expr::List(list) => {
                let mut nodes = Vec::new();
                let mut of = Type::Anything;
                for element in &list.elements {
                    let (node, found) = self.part(&element.expr, room)?;
                    if !of.is_like(&found) {
                        let problem = format!("a list has {of} and {found}");
                        return Err(NoRule::new(problem, "put values of one kind in it"));
                    }
                    if of != Type::Number {
                        of = found;
                    }
                    nodes.push(node);
                }
                Ok((Node::List(nodes), Type::List(Box::new(of))))
            }
            Expr::Call(call) => self.call(call, room),
            Expr::Comprehension(_) => Err(unknown("all`, `exists`, `map` and `filter")),
            _ => Err(NoRule::new("it makes a map or an object", "compare single values")),
        }
    }

    fn call(&self, call: &CallExpr, room: usize) -> Result<Typed, NoRule> {
        let name = call.func_name.as_str();
        if call.target.is_some() {
            return Err(unknown(name));
        }
        let mut parts = Vec::new();
        for argument in &call.args {
            parts.push(self.part(&argument.expr, room)?);
        }
        match (name, <[Typed; 1]>::try_from(parts)) {
            (operators::LOGICAL_NOT, Ok([(node, found)])) => {
                boolean("!", &found)?;
                Ok((Node::Not(Box::new(node)), Type::Boolean))
            }
            (operators::NEGATE, Ok([(node, found)])) if found.is_numeric() => {
                Ok((Node::Negate(Box::new(node)), found))
            }
            (operators::NEGATE, Ok([(_, found)])) => Err(mismatch("-", &found, None)),
            (name, Ok([(node, found)])) => {
                let function = Function::ALL.into_iter().find(|function| function.name() == name);
                let function = function.ok_or_else(|| unknown(name))?;
                let given = function.type_of(&found)?;
                Ok((Node::Call(function, Box::new(node)), given))
            }
            (name, Err(parts)) => several(name, parts),
        }
    }

    fn field(&self, expression: &Expr) -> Result<Typed, NoRule> {
        let mut names = Vec::new();
        let mut expression = expression;
        loop {
            match expression {
                Expr::Ident(name) => {
                    names.push(name.as_str());
                    break;
                }
                Expr::Select(SelectExpr { operand, field, test: false }) => {
                    names.push(field.as_str());
                    expression = &operand.expr;
                }
                _ => {
                    let problem = "it takes a field of something that is no field";
                    return Err(NoRule::new(problem, "name a field, as in `lines.amount`"));
                }
            }
        }
        names.reverse();
        if names.first() == Some(&"this") && names.len() > 1 {
            names.remove(0);
        }
        self.resolve(&names)
    }

    /// `has(this.end)`.
    fn has(&self, select: &SelectExpr) -> Result<Typed, NoRule> {
        let select = SelectExpr { test: false, ..select.clone() };
        match self.field(&Expr::Select(select))? {
            (Node::Field(names), _) => Ok((Node::Has(names), Type::Boolean)),
            (Node::Whole(members), _) => match *members {
                Node::Field(names) => Ok((Node::Has(names), Type::Boolean)),
                _ => Err(unknown("has")),
            },
            _ => Err(unknown("has")),
        }
    }

    fn resolve(&self, names: &[&str]) -> Result<Typed, NoRule> {
        let mut fields = Some(self.fields);
        let (mut path, mut kind) = (Vec::new(), None);
        for (number, name) in names.iter().enumerate() {
            let known = fields.map(|fields| fields.keys().map(String::as_str).collect::<Vec<_>>());
            let Some(field) = fields.and_then(|fields| fields.get(*name)) else {
                let so_far = names.get(..number).unwrap_or_default().join(".");
                return Err(match known {
                    Some(known) if so_far.is_empty() => NoRule::new(
                        format!("`{name}` is no field"),
                        words::instead(name, &known, "name a field of the type"),
                    ),
                    Some(known) => NoRule::new(
                        format!("`{so_far}` has no field `{name}`"),
                        words::instead(name, &known, "name one that it has"),
                    ),
                    None => NoRule::new(
                        format!("`{so_far}` has no fields"),
                        format!("leave `.{name}` out"),
                    ),
                });
            };
            path.push((*name).to_owned());
            let mut inner = &field.kind;
            // Only what is in a list or map has fields, so it is gone into where one is asked for.
            while number + 1 < names.len()
                && let Kind::List { items, .. } | Kind::Map { items, .. } = inner
            {
                path.push("*".to_owned());
                inner = items;
            }
            fields = match inner {
                Kind::Record { fields } => Some(fields),
                _ => None,
            };
            kind = Some(inner);
        }
        let whole = Type::List(Box::new(Type::Integer));
        let what = names.join(".");
        let kind = kind.ok_or_else(|| NoRule::new("it names nothing", "name a field"))?;
        let mut found = type_of(&what, kind)?;
        if matches!(kind, Kind::Map { .. }) {
            // The values of a map, as a list.
            path.push("*".to_owned());
        }
        if path.iter().any(|name| name == "*") && !matches!(kind, Kind::Map { .. }) {
            if matches!(found, Type::List(_)) {
                let problem = format!("`{what}` is lists of lists");
                return Err(NoRule::new(problem, "name a field of single values"));
            }
            found = Type::List(Box::new(found));
        }
        let node = Node::Field(path);
        let is_whole = matches!(kind, Kind::Set { .. }) && found == whole;
        Ok((if is_whole { Node::Whole(Box::new(node)) } else { node }, found))
    }
}

fn type_of(what: &str, kind: &Kind) -> Result<Type, NoRule> {
    Ok(match kind {
        Kind::Text { .. }
        | Kind::String { .. }
        | Kind::Enum { .. }
        | Kind::Reference { .. }
        | Kind::Position => Type::String,
        Kind::Integer { .. } | Kind::Counter => Type::Integer,
        Kind::Number { .. } => Type::Number,
        Kind::Boolean => Type::Boolean,
        Kind::Timestamp { .. } => Type::Timestamp,
        Kind::Set { items, .. } => Type::List(Box::new(type_of(what, items)?)),
        Kind::List { items, .. } | Kind::Map { items, .. } => match &**items {
            Kind::Record { .. } => Type::List(Box::new(Type::Anything)),
            single => match type_of(what, single)? {
                Type::List(_) => Type::List(Box::new(Type::Anything)),
                single => Type::List(Box::new(single)),
            },
        },
        Kind::Record { .. } => {
            let problem = format!("`{what}` is a map with fields");
            return Err(NoRule::new(problem, format!("name one of them, as in `{what}.name`")));
        }
        Kind::Blob { .. } | Kind::Attachment { .. } | Kind::Json => {
            let problem = format!("`{what}` is of kind `{}`", kind.name());
            return Err(NoRule::new(problem, "rules cannot look into it: use another field"));
        }
    })
}

fn constant(literal: &LiteralValue) -> Result<Typed, NoRule> {
    Ok(match literal {
        LiteralValue::Boolean(yes) => (Node::Constant(Value::Boolean(*yes.inner())), Type::Boolean),
        LiteralValue::Int(number) => (Node::Constant(Value::Integer(**number)), Type::Integer),
        LiteralValue::Double(number) => (Node::Constant(Value::Number(**number)), Type::Number),
        LiteralValue::String(text) => {
            (Node::Constant(Value::String(text.inner().to_owned())), Type::String)
        }
        LiteralValue::Null | LiteralValue::Bytes(_) | LiteralValue::UInt(_) => {
            let fix = "write a number, a string, true or false; ask with has(this.field) whether \
                       there is a value";
            return Err(NoRule::new("it has a null, bytes or a number with u", fix));
        }
    })
}

/// What has two or three parts.
fn several(name: &str, parts: Vec<Typed>) -> Result<Typed, NoRule> {
    if name == operators::CONDITIONAL {
        let [(condition, first), (then, one), (otherwise, other)] =
            <[Typed; 3]>::try_from(parts).map_err(|_| unknown("?"))?;
        boolean("?", &first)?;
        if one != other && !(one.is_numeric() && other.is_numeric()) {
            return Err(mismatch(":", &one, Some(&other)));
        }
        let found = if one == other { one } else { Type::Number };
        return Ok((Node::If(Box::new(condition), Box::new(then), Box::new(otherwise)), found));
    }
    let [(left, one), (right, other)] = <[Typed; 2]>::try_from(parts).map_err(|_| unknown(name))?;
    let (left, right) = (Box::new(left), Box::new(right));
    let (symbol, operator) = match name {
        operators::LOGICAL_AND | operators::LOGICAL_OR => {
            let is_and = name == operators::LOGICAL_AND;
            let symbol = if is_and { "&&" } else { "||" };
            boolean(symbol, &one)?;
            boolean(symbol, &other)?;
            let node = if is_and { Node::And(left, right) } else { Node::Or(left, right) };
            return Ok((node, Type::Boolean));
        }
        operators::ADD => ("+", Operator::Add),
        operators::SUBSTRACT => ("-", Operator::Subtract),
        operators::MULTIPLY => ("*", Operator::Multiply),
        operators::DIVIDE => ("/", Operator::Divide),
        operators::MODULO => ("%", Operator::Remainder),
        operators::EQUALS => ("==", Operator::Equal),
        operators::NOT_EQUALS => ("!=", Operator::NotEqual),
        operators::LESS => ("<", Operator::Less),
        operators::LESS_EQUALS => ("<=", Operator::LessOrEqual),
        operators::GREATER => (">", Operator::Greater),
        operators::GREATER_EQUALS => (">=", Operator::GreaterOrEqual),
        operators::IN => ("in", Operator::In),
        other => return Err(unknown(other)),
    };
    let found = result(operator, &one, &other);
    let found = found.ok_or_else(|| mismatch(symbol, &one, Some(&other)))?;
    Ok((Node::Binary(operator, left, right), found))
}

/// What an operator gives; `None` if it cannot take these.
fn result(operator: Operator, one: &Type, other: &Type) -> Option<Type> {
    use Operator::{Add, Divide, Equal, In, Multiply, NotEqual, Remainder, Subtract};
    use Type::{Boolean, Integer, List, Number, String, Timestamp};
    match (operator, one, other) {
        (Equal | NotEqual, one, other) => match (one, other) {
            (List(one), List(other)) => one.is_like(other).then_some(Boolean),
            (one, other) => one.is_like(other).then_some(Boolean),
        },
        (In, one, List(items)) => items.is_like(one).then_some(Boolean),
        (Add | Subtract | Multiply | Divide | Remainder, Integer, Integer) => Some(Integer),
        (Add | Subtract | Multiply | Divide | Remainder, one, other)
            if one.is_numeric() && other.is_numeric() =>
        {
            Some(Number)
        }
        (Subtract, Timestamp, Timestamp) => Some(Integer),
        (Add | Subtract, Timestamp, Integer) | (Add, Integer, Timestamp) => Some(Timestamp),
        (Add, String, String) => Some(String),
        (Add | Subtract | Multiply | Divide | Remainder | In, ..) => None,
        (_, one, other) => (one.is_like(other) && one.has_order()).then_some(Boolean),
    }
}

fn boolean(symbol: &str, found: &Type) -> Result<(), NoRule> {
    if *found == Type::Boolean { Ok(()) } else { Err(mismatch(symbol, found, None)) }
}

fn mismatch(symbol: &str, one: &Type, other: Option<&Type>) -> NoRule {
    let problem = match other {
        Some(other) => format!("`{symbol}` is between {one} and {other}"),
        None => format!("`{symbol}` is applied to {one}"),
    };
    NoRule::new(problem, "use it with values that it is for, of one kind")
}

fn unknown(name: &str) -> NoRule {
    let all = Function::ALL.map(|function| format!("`{}`", function.name())).join(", ");
    let problem = format!("it uses `{name}`, which rules do not have, or not so");
    NoRule::new(problem, format!("the functions are {all}, each of one value, and `has(this.x)`"))
}
