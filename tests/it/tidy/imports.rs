//! The import graph of the source files, and its cycles.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, assert_none, sources};

type ModulePath = Vec<String>;

/// Returns the paths that a source text imports or names from `crate`, `super`, `self` or, in
/// `use` declarations, from anything else.
pub(super) fn paths(code: &str) -> Vec<ModulePath> {
    let mut found = Vec::new();
    let mut rest = String::new();
    let mut statement: Option<String> = None;
    for line in code.lines() {
        let text = line.trim_start();
        let declaration = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "]
            .iter()
            .find_map(|start| text.strip_prefix(start));
        match (&mut statement, declaration) {
            (None, Some(tree)) => statement = Some(tree.to_owned()),
            (Some(tree), _) => tree.push_str(text),
            (None, None) => {
                rest.push_str(line);
                rest.push('\n');
            }
        }
        if statement.as_ref().is_some_and(|tree| tree.ends_with(';')) {
            let tree = statement.take().unwrap_or_default();
            expand(tree.trim_end_matches(';'), &[], &mut found);
        }
    }
    for start in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(start) {
            // `pub(in crate::a)` is a visibility, not an import.
            let is_import = !rest[..at].ends_with([':', '_']) && !rest[..at].ends_with("(in ");
            if is_import {
                found.push(leading_path(&rest[at..]));
            }
        }
    }
    found
}

/// Adds each path of a use tree such as `a::{b, c::{self, D as E}}` to `found`.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<ModulePath>) {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        let segments = name.split("::").filter(|name| !matches!(*name, "" | "*"));
        let segments = segments.filter(|name| prefix.is_empty() || *name != "self");
        let path = prefix.iter().cloned();
        found.push(path.chain(segments.map(str::to_owned)).collect());
        return;
    };
    let segments = before.split("::").filter(|name| !name.is_empty());
    let prefix: Vec<_> = prefix
        .iter()
        .cloned()
        .chain(segments.map(|name| name.trim().to_owned()))
        .collect();
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&inner[start..at], &prefix, found);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        expand(&inner[start..], &prefix, found);
    }
}

/// Returns the segments of the path at the start of a text.
fn leading_path(text: &str) -> ModulePath {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let path = &text[..end.unwrap_or(text.len())];
    let segments = path.split("::").filter(|name| !name.is_empty());
    segments.map(str::to_owned).collect()
}

/// Returns the module that a file holds: the crate, then the names below it.
fn module_of(file: &str) -> ModulePath {
    let (krate, below) = match file.strip_prefix("bin/myapp/") {
        Some(below) => ("bin", below),
        None => ("lib", file),
    };
    let below = below.strip_suffix(".rs").unwrap_or(below);
    let names = below.split('/').map(str::to_owned);
    let mut module: ModulePath = [krate.to_owned()].into_iter().chain(names).collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// Returns the module that a path leads to from a file's own module.
fn resolve(
    path: &[String],
    own: &[String],
    modules: &BTreeMap<ModulePath, &str>,
) -> Option<ModulePath> {
    let mut module = own.to_vec();
    let mut segments = path.iter().peekable();
    match segments.peek()?.as_str() {
        "crate" => {
            module.truncate(1);
            segments.next();
        }
        "self" => {
            segments.next();
        }
        "super" => {
            while segments.next_if(|name| *name == "super").is_some() {
                module.pop();
            }
        }
        // A child of the file's own module; anything else is another crate.
        name => {
            let mut child = own.to_vec();
            child.push(name.to_owned());
            if !modules.contains_key(&child) {
                return None;
            }
        }
    }
    for name in segments {
        module.push(name.clone());
        if !modules.contains_key(&module) {
            module.pop();
            break;
        }
    }
    modules.contains_key(&module).then_some(module)
}

/// Returns the files that each file imports from.
fn graph(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let modules: BTreeMap<_, _> = sources
        .iter()
        .map(|source| (module_of(&source.name), source.name.as_str()))
        .collect();
    let mut graph = BTreeMap::new();
    for source in sources {
        let own = module_of(&source.name);
        let targets = paths(&source.code)
            .iter()
            .filter_map(|path| resolve(path, &own, &modules))
            .map(|module| modules[&module])
            .filter(|file| *file != source.name)
            .collect();
        graph.insert(source.name.as_str(), targets);
    }
    graph
}

/// Returns the files that are reachable from one by imports.
fn reachable<'a>(from: &str, graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut pending: Vec<_> = graph[from].iter().copied().collect();
    while let Some(file) = pending.pop() {
        if found.insert(file) {
            pending.extend(&graph[file]);
        }
    }
    found
}

/// Returns the groups of files that import one another, directly or through others.
fn cycles(sources: &[Source]) -> Vec<String> {
    let graph = graph(sources);
    let reach: BTreeMap<_, _> = graph
        .keys()
        .map(|file| (*file, reachable(file, &graph)))
        .collect();
    let mut groups = BTreeSet::new();
    for (file, files) in &reach {
        let group: Vec<_> = files
            .iter()
            .filter(|other| reach[**other].contains(file))
            .copied()
            .collect();
        if !group.is_empty() {
            groups.insert(group);
        }
    }
    groups
        .into_iter()
        .map(|group| {
            let edges = group.iter().flat_map(|from| {
                let targets = graph[from].iter().filter(|to| group.contains(to));
                targets.map(move |to| format!("  {from} -> {to}"))
            });
            let edges: Vec<_> = edges.collect();
            format!("{} files:\n{}", group.len(), edges.join("\n"))
        })
        .collect()
}

#[test]
fn files_do_not_import_one_another_in_cycles() {
    assert_none(cycles(&sources()));
}

fn source(name: &str, code: &str) -> Source {
    Source {
        name: name.to_owned(),
        code: code.to_owned(),
    }
}

#[test]
fn a_cycle_through_a_nested_use_is_found() {
    let sources = [
        source("lib.rs", "pub mod a;\npub mod b;\n"),
        source(
            "a.rs",
            "use std::io;\nuse crate::{\n    b::{self, X as Y},\n};\n",
        ),
        source("b/mod.rs", "mod c;\npub use c::Z;\n"),
        source("b/c.rs", "fn f() {\n    super::super::a::g();\n}\n"),
    ];
    let found = cycles(&sources);
    assert_eq!(
        found,
        ["3 files:\n  a.rs -> b/mod.rs\n  b/c.rs -> a.rs\n  b/mod.rs -> b/c.rs"]
    );
    assert_eq!(cycles(&sources[..3]), [""; 0]);
}

#[test]
fn paths_are_expanded() {
    let code = "use crate::net::{address::{A, B}, udp};\nfn f() {\n    crate::units::parse()\n}\n";
    let found: Vec<_> = paths(code).iter().map(|path| path.join("::")).collect();
    let expected = [
        "crate::net::address::A",
        "crate::net::address::B",
        "crate::net::udp",
        "crate::units::parse",
    ];
    assert_eq!(found, expected);
}
