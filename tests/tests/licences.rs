//! Every crate that is built in comes from the registry, under a licence that lets Holdfast be used as its own licences say.

use holdfast_tests::tree;
use serde_json::Value;

/// Licences (SPDX) that ask for no more than notices, or, as MPL-2.0 does, for the crate's own changed files.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Whether an SPDX expression (`OR`, `AND`, brackets, and the older `/` for `OR`) can be met with allowed licences.
///
/// An `OR` list is met by one of its parts, an `AND` list by all of them; `AND` binds tighter. What cannot be read is not allowed.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let allowed = any_of(&words, &mut at);
    allowed && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = all_of(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        // Both sides are read in any case, to get past them.
        let right = all_of(words, at);
        allowed = allowed || right;
    }
    allowed
}

fn all_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        let right = one(words, at);
        allowed = allowed && right;
    }
    allowed
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else {
        // A position past the end tells the caller that the expression broke off.
        *at = words.len() + 1;
        return false;
    };
    *at += 1;
    if *word == "(" {
        let allowed = any_of(words, at);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return allowed && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or("");
        *at += 2;
        return ALLOWED.contains(&format!("{word} WITH {exception}").as_str());
    }
    ALLOWED.contains(word)
}

fn faults(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or("?");
        match package["license"].as_str() {
            None => faults.push(format!("{name} names no licence")),
            Some(licence) if !is_allowed(licence) => {
                faults.push(format!("{name} is under {licence}, which is not on the list"))
            }
            Some(_) => {}
        }
        if let Some(source) = package["source"].as_str()
            && source != REGISTRY
        {
            faults.push(format!(
                "{name} does not come from the registry but from {source}"
            ));
        }
    }
    faults
}

#[test]
fn dependencies_are_under_licences_that_fit() {
    // Crates for other systems are not fetched, so they cannot be looked at.
    let metadata = tree::cargo_metadata(&["--filter-platform", &host().unwrap()]).unwrap();
    let packages = metadata["packages"].as_array().unwrap().len();
    assert!(packages > 50, "only {packages} packages listed");
    let faults = faults(&metadata);
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

/// The system that this test runs on, as cargo names it.
fn host() -> Option<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = std::process::Command::new(rustc).arg("-vV").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned)
}

#[test]
fn the_licences_themselves_are_there() {
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let text = std::fs::read_to_string(tree::root().join(name)).unwrap();
        assert!(text.len() > 1000, "{name}");
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    for good in [
        "MIT",
        "MIT OR Apache-2.0",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
        "MIT AND BSD-3-Clause OR GPL-2.0",
    ] {
        assert!(is_allowed(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "AGPL-3.0-only",
        "MIT AND GPL-2.0",
        "(MIT",
        "MIT)",
        "MIT OR",
        "GPL-2.0 OR MIT AND LGPL-3.0",
        "GPL-2.0 WITH LLVM-exception",
    ] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

#[test]
fn a_licence_that_does_not_fit_is_found() {
    let metadata = serde_json::json!({"packages": [
        {"name": "a", "license": "AGPL-3.0-only", "source": REGISTRY},
        {"name": "b", "license": "MIT", "source": "git+https://example.org/b"},
        {"name": "c", "license": null, "source": null},
    ]});
    let wanted = [
        "a is under AGPL-3.0-only, which is not on the list",
        "b does not come from the registry but from git+https://example.org/b",
        "c names no licence",
    ];
    assert_eq!(faults(&metadata), wanted);
}
