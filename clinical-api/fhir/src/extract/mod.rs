//! From a resource to its search values: all parameters of a type merged into one tree and walked once.

mod dates;
mod emit;
mod expression;
mod values;

pub(crate) use dates::{Range, point};
pub(crate) use values::{Extracted, LONGEST, Reference, SEPARATOR, fold, hash, local_reference, string_row};

use crate::definitions::{Definitions, Kind, Param, ResourceDef};
use emit::Emit;
use expression::{Expression, Step};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// The compiled parameters of one resource type.
pub(crate) struct Plan {
    nodes: Vec<Node>,
    /// `k` of parameters that are true or false by presence, and so have a value even where nothing is found.
    presence: Vec<i64>,
    /// Parameters whose value can stand only once in a resource.
    single: Vec<i64>,
    /// Parameters whose rows hold hashes (identifiers, contact points, plain text), and those that hold codes.
    hashed: HashSet<i64>,
    coded: HashSet<i64>,
    /// Parts of expressions that carry no value this kind of parameter can hold (`string` under a date, for one).
    #[allow(dead_code, reason = "read by tests")]
    pub(crate) unusable: Vec<String>,
    #[allow(dead_code, reason = "read by tests")]
    pub(crate) failed: Vec<String>,
}

#[derive(Default)]
struct Node {
    fields: HashMap<String, Vec<(Option<usize>, usize)>>,
    conditions: Vec<(String, String, usize)>,
    leaves: Vec<Leaf>,
}

struct Leaf {
    k: i64,
    emit: Emit,
    only: Option<&'static str>,
}

/// A place in the tree while compiling, with the type of what stands there.
#[derive(Clone)]
struct At {
    node: usize,
    ty: &'static str,
    only: Option<&'static str>,
    many: bool,
    /// The field just entered, for an index that may follow: (parent, property).
    edge: Option<(usize, String)>,
}

impl Plan {
    /// Of all parameters, or of those wanted.
    pub(crate) fn compile(resource: &'static ResourceDef, wanted: impl Fn(&Param) -> bool) -> Self {
        let mut plan = Self {
            nodes: vec![Node::default()],
            presence: Vec::new(),
            single: Vec::new(),
            hashed: HashSet::new(),
            coded: HashSet::new(),
            unusable: Vec::new(),
            failed: Vec::new(),
        };
        for param in resource
            .params
            .iter()
            .filter(|p| p.supported() && !matches!(p.code, "_id" | "_lastUpdated") && wanted(p))
        {
            if let Err(why) = plan.add(resource, param) {
                plan.failed.push(format!("{}.{}: {why}", resource.name, param.code));
            }
        }
        plan
    }

    /// May a top-level member of this name hold any of the values?
    pub(crate) fn begins_with(&self, member: &str) -> bool {
        self.nodes.first().is_some_and(|root| root.fields.contains_key(member))
    }

    /// Can this parameter have at most one value in a resource?
    pub(crate) fn is_single(&self, k: i64) -> bool {
        self.single.contains(&k)
    }

    pub(crate) fn holds_hashes(&self, k: i64) -> bool {
        self.hashed.contains(&k)
    }

    pub(crate) fn holds_codes(&self, k: i64) -> bool {
        self.coded.contains(&k)
    }

    /// Walks a resource. `base` is our own address, whose absolute references are local.
    pub(crate) fn run(&self, resource: &Value, base: &str) -> Extracted {
        let mut out = Extracted::default();
        self.walk(0, resource, base, &mut out);
        for k in &self.presence {
            let yes = out.codes.iter().any(|(key, code, _)| key == k && code == "true");
            if !yes {
                out.codes.push((*k, "false".into(), String::new()));
            }
        }
        out
    }

    fn add(&mut self, resource: &'static ResourceDef, param: &Param) -> Result<(), String> {
        let (paths, presence) = match expression::parse(param.expression)? {
            Expression::Union(paths) => (paths, false),
            Expression::PresentAndNotFalse(path) => (vec![path], true),
        };
        let mut found = 0;
        let mut many = paths.len() > 1;
        for path in paths {
            let mut here = vec![At {
                node: 0,
                ty: resource.name,
                only: None,
                many: false,
                edge: None,
            }];
            for step in &path {
                here = here
                    .into_iter()
                    .map(|at| self.step(at, step))
                    .collect::<Result<Vec<_>, _>>()?
                    .concat();
            }
            many |= here.iter().any(|at| at.many);
            for at in here {
                let emit = if presence {
                    Some(Emit::Presence)
                } else {
                    Emit::of(param.kind, at.ty)
                };
                match (emit, self.nodes.get_mut(at.node)) {
                    (Some(emit), Some(node)) => {
                        found += 1;
                        if emit.hashes() {
                            self.hashed.insert(param.k);
                        } else {
                            self.coded.insert(param.k);
                        }
                        node.leaves.push(Leaf {
                            k: param.k,
                            emit,
                            only: at.only,
                        });
                    }
                    _ => self.unusable.push(format!(
                        "{}.{} {} as {}",
                        resource.name,
                        param.code,
                        param.kind.name(),
                        at.ty
                    )),
                }
            }
        }
        if presence {
            self.presence.push(param.k);
        }
        if !many && param.kind == Kind::Date {
            self.single.push(param.k);
        }
        if found == 0 {
            Err(format!("nothing to find: {}", param.expression))
        } else {
            Ok(())
        }
    }

    fn step(&mut self, at: At, step: &Step) -> Result<Vec<At>, String> {
        match step {
            Step::Field(name) => {
                let element = Definitions::get()
                    .type_def(at.ty)
                    .and_then(|t| t.elements.iter().find(|e| e.name == name))
                    .ok_or_else(|| format!("{} has no {name}", at.ty))?;
                Ok(element
                    .types
                    .iter()
                    .map(|ty| {
                        let property = element.property(ty.code);
                        let node = self.child(at.node, &property, None);
                        let many = at.many || element.many;
                        At {
                            node,
                            ty: ty.code,
                            only: None,
                            many,
                            edge: Some((at.node, property)),
                        }
                    })
                    .collect())
            }
            Step::As(ty) => Ok(if at.ty == ty { vec![at] } else { Vec::new() }),
            Step::ResolvesTo(ty) => {
                let known = Definitions::get()
                    .resource(ty)
                    .ok_or_else(|| format!("no resource {ty}"))?;
                Ok(vec![At {
                    only: Some(known.name),
                    ..at
                }])
            }
            Step::Where(field, value) => {
                let next = self.nodes.len();
                self.nodes.push(Node::default());
                if let Some(node) = self.nodes.get_mut(at.node) {
                    node.conditions.push((field.clone(), value.clone(), next));
                }
                Ok(vec![At {
                    node: next,
                    edge: None,
                    ..at
                }])
            }
            Step::Index(n) => {
                let (parent, property) = at.edge.clone().ok_or("an index without a field")?;
                let node = self.child(parent, &property, Some(*n));
                Ok(vec![At { node, edge: None, ..at }])
            }
        }
    }

    fn child(&mut self, parent: usize, property: &str, index: Option<usize>) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(parent) else {
            return parent;
        };
        let edges = node.fields.entry(property.to_owned()).or_default();
        if let Some((_, there)) = edges.iter().find(|(i, _)| *i == index) {
            return *there;
        }
        edges.push((index, next));
        self.nodes.push(Node::default());
        next
    }

    fn walk(&self, node: usize, value: &Value, base: &str, out: &mut Extracted) {
        let Some(here) = self.nodes.get(node) else { return };
        if let Value::Array(items) = value {
            for item in items {
                self.walk(node, item, base, out);
            }
            return;
        }
        for leaf in &here.leaves {
            leaf.emit.run(leaf.k, leaf.only, value, base, out);
        }
        let Value::Object(map) = value else { return };
        for (field, wanted, next) in &here.conditions {
            if map.get(field).and_then(Value::as_str) == Some(wanted) {
                self.walk(*next, value, base, out);
            }
        }
        if here.fields.is_empty() {
            return;
        }
        for (key, inner) in map {
            for (index, next) in here.fields.get(key).into_iter().flatten() {
                match index {
                    None => self.walk(*next, inner, base, out),
                    Some(i) => {
                        if let Some(item) = inner.get(*i) {
                            self.walk(*next, item, base, out);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
