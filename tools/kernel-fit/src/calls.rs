//! The graph of calls: no recursion, and the deepest stack.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::{Code, Function, Key, demangle};

/// Every function of some objects, by key.
pub(crate) struct Calls<'code> {
    functions: BTreeMap<&'code Key, &'code Function>,
}

/// The stack of a chain of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Size in bytes, return addresses included; calls to functions outside the objects are not counted.
    pub(crate) bytes: u64,
    /// The functions, outermost first.
    pub(crate) names: Vec<String>,
}

/// The reason why a chain has no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unbounded {
    /// The functions that call each other, the first once more at the end.
    Recursion(Vec<String>),
    /// A function whose frame is not constant, or unknown.
    Frame(String),
}

impl<'code> Calls<'code> {
    pub(crate) fn new(codes: &'code [Code]) -> Self {
        let functions = codes.iter().flat_map(|code| &code.functions);
        Self { functions: functions.map(|function| (&function.key, function)).collect() }
    }

    /// The deepest chain from the functions whose name starts with `prefix`.
    pub(crate) fn deepest(&self, prefix: &str) -> Result<Chain, Unbounded> {
        let mut known = BTreeMap::new();
        let mut deepest = Chain::default();
        for function in self.functions.values().filter(|function| function.name.starts_with(prefix)) {
            let chain = self.chain(function, &mut Vec::new(), &mut known)?;
            if chain.bytes > deepest.bytes {
                deepest = chain;
            }
        }
        Ok(deepest)
    }

    /// Demangled names of the functions outside the objects that are called from those whose name starts with
    /// `prefix`.
    pub(crate) fn external(&self, prefix: &str) -> BTreeSet<String> {
        let starts = self.functions.values().filter(|function| function.name.starts_with(prefix));
        let mut open: Vec<&Function> = starts.copied().collect();
        let mut seen: BTreeSet<&Key> = open.iter().map(|function| &function.key).collect();
        let mut external = BTreeSet::new();
        while let Some(function) = open.pop() {
            for key in &function.refers_to {
                match (self.functions.get(key), key) {
                    (Some(called), _) if seen.insert(key) => open.push(called),
                    (None, Key::Global(name)) => drop(external.insert(demangle(name))),
                    _ => {}
                }
            }
        }
        external
    }

    fn chain(
        &self,
        function: &'code Function,
        callers: &mut Vec<&'code Function>,
        known: &mut BTreeMap<&'code Key, Chain>,
    ) -> Result<Chain, Unbounded> {
        if let Some(chain) = known.get(&function.key) {
            return Ok(chain.clone());
        }
        if let Some(first) = callers.iter().position(|caller| caller.key == function.key) {
            let circle = callers.iter().skip(first).chain([&function]);
            return Err(Unbounded::Recursion(circle.map(|function| function.name.clone()).collect()));
        }
        let frame = function.frame.ok_or_else(|| Unbounded::Frame(function.name.clone()))?;
        callers.push(function);
        let mut below = Chain::default();
        for called in function.refers_to.iter().filter_map(|key| self.functions.get(key)) {
            let chain = self.chain(called, callers, known)?;
            if chain.bytes > below.bytes {
                below = chain;
            }
        }
        callers.pop();
        let mut names = vec![function.name.clone()];
        names.extend(below.names);
        let chain = Chain { bytes: frame + below.bytes, names };
        known.insert(&function.key, chain.clone());
        Ok(chain)
    }
}
