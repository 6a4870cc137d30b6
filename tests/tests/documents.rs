//! Links in the project's pages lead somewhere.

use std::path::Path;

use holdfast_tests::tree::{self, SourceFile};

/// Targets of `](…)` and `src="…"`, code blocks left out.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            for (start, end) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
                let starts = line.match_indices(start).map(|(at, _)| &line[at + start.len()..]);
                found.extend(
                    starts
                        .filter_map(|rest| rest.split_once(end))
                        .map(|(link, _)| link),
                );
            }
        }
    }
    found
}

/// The anchor that a heading gets: lower case, blanks as hyphens, other signs dropped.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

fn fault(page: &SourceFile, link: &str, root: &Path) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, wanted) = link
        .split_once('#')
        .map_or((link, None), |(file, wanted)| (file, Some(wanted)));
    let beside = Path::new(&page.path).parent().unwrap_or(Path::new(""));
    let path = if file.is_empty() {
        root.join(&page.path)
    } else {
        root.join(beside).join(file)
    };
    if !path.exists() {
        return Some(format!("{}: {link} leads nowhere", page.path));
    }
    let wanted = wanted?;
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let is_there = headings.map(anchor).any(|name| name == wanted);
    (!is_there).then(|| format!("{}: {link} names a heading that is not there", page.path))
}

#[test]
fn links_in_pages_lead_somewhere() {
    let root = tree::root();
    let files = tree::files().unwrap();
    let pages: Vec<&SourceFile> = files.iter().filter(|file| file.path.ends_with(".md")).collect();
    assert!(pages.iter().any(|page| page.path == "README.md"));
    let faults: Vec<String> = pages
        .iter()
        .flat_map(|page| {
            links(&page.text)
                .into_iter()
                .filter_map(|link| fault(page, link, &root))
        })
        .collect();
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Source files and tests that a page names and that are not there. A file is named by the end of its path, a test by its first words and
/// `_…`.
fn unknown_names(page: &SourceFile, files: &[SourceFile]) -> Vec<String> {
    let is_file = |name: &str| {
        let end = format!("/{name}");
        files
            .iter()
            .any(|file| file.path == name || file.path.ends_with(&end))
    };
    // Some tests are made by macros: no `fn` in front.
    let is_test = |start: &str| {
        let starts = [format!("fn {start}"), format!("    {start}")];
        files
            .iter()
            .any(|file| file.is_rust() && starts.iter().any(|start| file.text.contains(start)))
    };
    let is_unknown = |name: &&str| match name.strip_suffix('…') {
        Some(start) => start.ends_with('_') && !is_test(start),
        None => name.ends_with(".rs") && !name.contains(' ') && !is_file(name),
    };
    quoted(&page.text)
        .filter(is_unknown)
        .map(|name| format!("{}: {name} is not there", page.path))
        .collect()
}

#[test]
fn files_and_tests_that_pages_name_are_there() {
    let files = tree::files().unwrap();
    let pages = files.iter().filter(|file| file.path.ends_with(".md"));
    let faults: Vec<String> = pages.flat_map(|page| unknown_names(page, &files)).collect();
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
    let page = SourceFile {
        path: "a.md".into(),
        text: "`tests/documents.rs`, `no_such.rs`, `a_broken_…`, `zz9_…`\n".into(),
    };
    assert_eq!(
        unknown_names(&page, &files),
        ["a.md: no_such.rs is not there", "a.md: zz9_… is not there"]
    );
}

#[test]
fn a_broken_link_is_found() {
    let page = SourceFile {
        path: "README.md".into(),
        text:
            "[a](Cargo.toml) [b](nowhere.md)\n```\n[c](code.md)\n```\n[d](README.md#no-such-heading-here)\n"
                .into(),
    };
    let root = tree::root();
    let found: Vec<String> = links(&page.text)
        .into_iter()
        .filter_map(|link| fault(&page, link, &root))
        .collect();
    let wanted = [
        "README.md: nowhere.md leads nowhere",
        "README.md: README.md#no-such-heading-here names a heading that is not there",
    ];
    assert_eq!(found, wanted);
    assert_eq!(
        anchor("## What works today, and what not"),
        "what-works-today-and-what-not"
    );
}

/// Names of metrics in a text: words that begin with the project's name and an underscore.
fn metrics(text: &str) -> std::collections::BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("holdfast_")).collect()
}

/// Names that a text uses and the page does not have. Of a histogram the page has the name without its parts.
fn unknown_metrics<'a>(text: &'a str, page: &str) -> Vec<&'a str> {
    let known = metrics(page);
    let is_unknown = |name: &&str| {
        let parts = ["", "_bucket", "_sum", "_count"];
        let mut wholes = parts.iter().filter_map(|part| name.strip_suffix(part));
        !wholes.any(|whole| known.contains(whole))
    };
    metrics(text).into_iter().filter(is_unknown).collect()
}

#[test]
fn alerts_and_the_dashboard_use_metrics_that_there_are() {
    let root = tree::root();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let page = read("docs/metrics.md");
    for path in ["deploy/prometheus-rules.yml", "deploy/grafana.json"] {
        let text = read(path);
        assert!(metrics(&text).len() > 10, "{path} says nothing");
        assert_eq!(unknown_metrics(&text, &page), Vec::<&str>::new(), "{path}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let has_query = |panel: &serde_json::Value| panel["targets"][0]["expr"].is_string();
    assert!(panels.iter().all(has_query));
    // A name on the page that the node does not tell would hide a wrong one.
    let node: String = tree::files()
        .unwrap()
        .into_iter()
        .filter(|file| file.path.starts_with("node/src/metrics"))
        .map(|file| file.text)
        .collect();
    // Names of extents and initiators are made of the same text.
    let made = |name: &str| ["_extent_", "_initiator_"].map(|label| name.replace(label, "_{label}_"));
    let is_told =
        |name: &&str| node.contains(*name) || made(name).iter().any(|name| node.contains(name.as_str()));
    let untold: Vec<&str> = metrics(&page).into_iter().filter(|name| !is_told(name)).collect();
    assert_eq!(untold, Vec::<&str>::new());
    assert_eq!(
        unknown_metrics("holdfast_b_sum holdfast_a", "`holdfast_b`"),
        ["holdfast_a"]
    );
}
