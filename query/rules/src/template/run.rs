//! Walks a template over the data of one alert, within bounds.

use std::sync::Arc;

use super::data::{Data, Limits, TemplateError};
use super::functions::{self, Context};
use super::parse::{Command, Node, Operand, Parsed, Pipe, What};
use super::value::{DataValue, Value};

/// How a list of nodes came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    /// The whole text with what stands before it, and what errors call it.
    text: &'a str,
    name: &'a str,
    parsed: &'a Parsed,
    limits: &'a Limits,
    context: Context<'a>,
    out: String,
    variables: Vec<(String, Value)>,
    steps: usize,
    depth: usize,
    /// The template that is carried out, for errors.
    executing: String,
}

/// Carries out what was read of a text over some data; `name` is what errors call it.
pub fn run(
    parsed: &Parsed,
    (text, name): (&str, &str),
    data: &Data<'_>,
    limits: &Limits,
) -> Result<String, TemplateError> {
    let dot = Value::Data(Arc::new(DataValue {
        labels: data.labels.clone(),
        external_labels: data.external.labels.clone(),
        external_url: data.external.url.as_str().into(),
        value: data.value.clone(),
    }));
    let mut run = Run {
        text,
        name,
        parsed,
        limits,
        context: Context { data, limits, made_bytes: 0, queries: 0 },
        out: String::new(),
        variables: vec![("$".into(), dot.clone())],
        steps: 0,
        depth: 0,
        executing: name.to_owned(),
    };
    run.list(&parsed.root, &dot)?;
    Ok(run.out)
}

impl<'a> Run<'a> {
    /// An error at a place of the text, as Go words it.
    fn error(&self, at: usize, shown: &str, why: impl std::fmt::Display) -> TemplateError {
        let before = &self.text[..at.min(self.text.len())];
        let line = 1 + before.matches('\n').count();
        let column = at - before.rfind('\n').map_or(0, |n| n + 1);
        TemplateError(format!(
            "template: {}:{line}:{column}: executing {} at <{shown}>: {why}",
            self.name,
            model::quote::quote(&self.executing)
        ))
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > self.limits.steps {
            let why = format!("the template takes more than {} steps", self.limits.steps);
            return Err(TemplateError(format!("template: {}: {why}", self.name)));
        }
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<(), TemplateError> {
        if self.out.len() + text.len() > self.limits.output_bytes {
            let why = format!("the text grows beyond {} bytes", self.limits.output_bytes);
            return Err(TemplateError(format!("template: {}: {why}", self.name)));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn list(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Result<Flow, TemplateError> {
        self.step()?;
        match node {
            Node::Text(text) => self.print(text)?,
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    match value {
                        None | Some(Value::Nil) => self.print("<no value>")?,
                        Some(value) => self.print(&value.printed())?,
                    }
                }
            }
            Node::If { pipe, body, otherwise } => {
                return self.scoped(|run| {
                    let value = run.pipe(pipe, dot)?.unwrap_or(Value::Nil);
                    run.list(if value.is_true() { body } else { otherwise }, dot)
                });
            }
            Node::With { pipe, body, otherwise } => {
                return self.scoped(|run| {
                    let value = run.pipe(pipe, dot)?.unwrap_or(Value::Nil);
                    match value.is_true() {
                        true => run.list(body, &value),
                        false => run.list(otherwise, dot),
                    }
                });
            }
            Node::Range { pipe, body, otherwise } => {
                return self.scoped(|run| run.range(pipe, body, otherwise, dot));
            }
            Node::Call { at, name, pipe } => self.call_template(*at, name, pipe.as_ref(), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// Variables that are declared inside end with it.
    fn scoped<T>(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        let known = self.variables.len();
        let result = inside(self);
        self.variables.truncate(known);
        result
    }

    fn range(
        &mut self,
        pipe: &'a Pipe,
        body: &'a [Node],
        otherwise: &'a [Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        // The variables are those of each round, not of the whole.
        let over = self.commands(pipe, dot)?.unwrap_or(Value::Nil);
        let rounds: Vec<(Value, Value)> = match &over {
            Value::Samples(all) => all
                .iter()
                .enumerate()
                .map(|(at, s)| (Value::Int(at as i64), Value::Sample(s.clone())))
                .collect(),
            Value::Map(map) => {
                map.iter().map(|(k, v)| (Value::text(k.as_str()), Value::text(v.as_str()))).collect()
            }
            Value::Args(map) => map.iter().map(|(k, v)| (Value::text(k.as_str()), v.clone())).collect(),
            Value::Int(n) => {
                (0..(*n).min(self.limits.steps as i64 + 1)).map(|i| (Value::Int(i), Value::Int(i))).collect()
            }
            Value::Nil => Vec::new(),
            other => {
                let first = &pipe.commands[0];
                let why = format!("range can't iterate over {}", other.printed());
                return Err(self.error(first.operands[0].at, &first.text, why));
            }
        };
        if rounds.is_empty() {
            return self.list(otherwise, dot);
        }
        for (key, element) in rounds {
            self.step()?;
            let flow = self.scoped(|run| {
                match pipe.variables.as_slice() {
                    [] => {}
                    [one] => run.set(pipe.assigns, one, element.clone()),
                    [first, second, ..] => {
                        run.set(pipe.assigns, first, key);
                        run.set(pipe.assigns, second, element.clone());
                    }
                }
                run.list(body, &element)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn call_template(
        &mut self,
        at: usize,
        name: &str,
        pipe: Option<&'a Pipe>,
        dot: &Value,
    ) -> Result<(), TemplateError> {
        let parsed = self.parsed;
        let Some(body) = parsed.defined.get(name) else {
            let why = format!("template {} not defined", model::quote::quote(name));
            return Err(self.error(at, &format!("{{{{template {}}}}}", model::quote::quote(name)), why));
        };
        if self.depth >= self.limits.depth {
            let why = format!("exceeded maximum template depth ({})", self.limits.depth);
            return Err(self.error(at, &format!("{{{{template {}}}}}", model::quote::quote(name)), why));
        }
        let dot = match pipe {
            Some(pipe) => self.pipe(pipe, dot)?.unwrap_or(Value::Nil),
            None => Value::Nil,
        };
        self.depth += 1;
        let variables = std::mem::replace(&mut self.variables, vec![("$".into(), dot.clone())]);
        let executing = std::mem::replace(&mut self.executing, name.to_owned());
        self.list(body, &dot)?;
        (self.variables, self.executing) = (variables, executing);
        self.depth -= 1;
        Ok(())
    }

    fn set(&mut self, assigns: bool, name: &str, value: Value) {
        let known = self.variables.iter_mut().rev().find(|(n, _)| n == name);
        match known {
            Some((_, known)) if assigns => *known = value,
            _ => self.variables.push((name.to_owned(), value)),
        }
    }

    /// The value of a pipeline, which its variable takes; `None` for the key that a map of anything lacks.
    fn pipe(&mut self, pipe: &'a Pipe, dot: &Value) -> Result<Option<Value>, TemplateError> {
        let value = self.commands(pipe, dot)?;
        for name in &pipe.variables {
            self.set(pipe.assigns, name, value.clone().unwrap_or(Value::Nil));
        }
        Ok(value)
    }

    fn commands(&mut self, pipe: &'a Pipe, dot: &Value) -> Result<Option<Value>, TemplateError> {
        let mut value = None;
        for (at, command) in pipe.commands.iter().enumerate() {
            let last = if at > 0 { Some(value.take().unwrap_or(Value::Nil)) } else { None };
            value = self.command(command, dot, last)?;
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &'a Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Option<Value>, TemplateError> {
        self.step()?;
        let first = &command.operands[0];
        let arguments = command.operands.len() > 1 || last.is_some();
        match &first.what {
            What::Function(name) => return self.function(name, command, dot, last).map(Some),
            What::Nil => return Err(self.error(first.at, &first.text, "nil is not a command")),
            What::Fields(_) | What::Variable(..) | What::Chain(..) if arguments => {
                let why = match &first.what {
                    What::Variable(_, fields) if fields.is_empty() => {
                        format!("can't give argument to non-function {}", first.text)
                    }
                    _ => {
                        let name = first.text.rsplit('.').next().unwrap_or("");
                        format!("{name} is not a method but has arguments")
                    }
                };
                return Err(self.error(first.at, &first.text, why));
            }
            _ if arguments => {
                let why = format!("can't give argument to non-function {}", first.text);
                return Err(self.error(first.at, &first.text, why));
            }
            _ => {}
        }
        self.operand(first, dot)
    }

    fn function(
        &mut self,
        name: &str,
        command: &'a Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let at = command.operands[0].at;
        let mut args = Vec::with_capacity(command.operands.len());
        // `and` and `or` look at no more than they need.
        let stop_at = match name {
            "and" => Some(false),
            "or" => Some(true),
            _ => None,
        };
        for operand in &command.operands[1..] {
            let value = self.operand(operand, dot)?.unwrap_or(Value::Nil);
            if stop_at == Some(value.is_true()) {
                return Ok(value);
            }
            args.push(value);
        }
        args.extend(last);
        let called = functions::call(name, args, &mut self.context);
        called.map_err(|why| self.error(at, &command.text, why))
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value) -> Result<Option<Value>, TemplateError> {
        Ok(Some(match &operand.what {
            What::Dot => dot.clone(),
            What::Nil => Value::Nil,
            What::Bool(b) => Value::Bool(*b),
            What::Int(n) => Value::Int(*n),
            What::Float(v) => Value::Float(*v),
            What::Text(text) => Value::text(text.as_str()),
            What::Fields(fields) => return self.fields(operand, dot.clone(), fields),
            What::Variable(name, fields) => {
                let value = self.variables.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                let value = value.ok_or_else(|| {
                    let why = format!("undefined variable: {name}");
                    self.error(operand.at, &operand.text, why)
                })?;
                return self.fields(operand, value, fields);
            }
            What::Function(name) => {
                self.step()?;
                let called = functions::call(name, Vec::new(), &mut self.context);
                called.map_err(|why| self.error(operand.at, &operand.text, why))?
            }
            What::Chain(inner, fields) => {
                let value = self.operand(inner, dot)?.unwrap_or(Value::Nil);
                return self.fields(operand, value, fields);
            }
            What::Pipe(pipe) => return self.pipe(pipe, dot),
        }))
    }

    fn fields(
        &mut self,
        operand: &Operand,
        from: Value,
        fields: &[String],
    ) -> Result<Option<Value>, TemplateError> {
        let mut value = Some(from);
        for field in fields {
            value = match value.unwrap_or(Value::Nil) {
                Value::Map(map) => Some(Value::text(map.get(field).map_or("", String::as_str))),
                Value::Args(map) => map.get(field).cloned(),
                Value::Sample(s) if field == "Labels" => Some(Value::Map(s.labels.clone())),
                Value::Sample(s) if field == "Value" => Some(s.value.clone()),
                Value::Data(d) => match field.as_str() {
                    "Labels" => Some(Value::Map(d.labels.clone())),
                    "ExternalLabels" => Some(Value::Map(d.external_labels.clone())),
                    "ExternalURL" => Some(Value::Text(d.external_url.clone())),
                    "Value" => Some(d.value.clone()),
                    _ => return Err(self.no_field(operand, field, &Value::Data(d))),
                },
                Value::Nil => {
                    let why = format!("nil data; no entry for key {}", model::quote::quote(field));
                    return Err(self.error(operand.at, &operand.text, why));
                }
                other => return Err(self.no_field(operand, field, &other)),
            };
        }
        Ok(value)
    }

    fn no_field(&self, operand: &Operand, field: &str, of: &Value) -> TemplateError {
        let why = format!("can't evaluate field {field} in type {}", of.type_name());
        self.error(operand.at, &operand.text, why)
    }
}
