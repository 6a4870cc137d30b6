//! The page around the pictures. Written so that a reader of XML takes it, too.

use std::fmt::Write;

use super::{Page, Table, Timeline, escape, picture, style};

/// Writing to a string cannot fail, so its results are dropped here.
pub(super) fn page(page: &Page) -> String {
    let title = escape(&page.title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><meta name=\"color-scheme\" content=\"light dark\"/>\
         <title>{title}</title>\n<style>{}</style></head>\n<body><main>\n",
        style::page()
    );
    let class = if page.held { "held" } else { "broken" };
    let mut lines = page.verdict.iter().map(|line| escape(line));
    let word = lines.next().unwrap_or_else(|| class.to_owned());
    let _ = writeln!(
        out,
        "<header class=\"{class}\"><h1>{title}</h1><p class=\"word\">{word}</p>"
    );
    list(&mut out, "ul", lines);
    out.push_str("</header>\n");
    for one in &page.tables {
        table(&mut out, one);
    }
    for one in &page.timelines {
        timeline(&mut out, one);
    }
    let _ = writeln!(
        out,
        "<footer><p>{}</p></footer>\n</main></body>\n</html>",
        escape(&page.foot)
    );
    out
}

/// A list of lines that are escaped already; nothing where there are none.
fn list(out: &mut String, kind: &str, lines: impl Iterator<Item = String>) {
    let items: String = lines.map(|line| format!("<li>{line}</li>")).collect();
    if !items.is_empty() {
        let _ = writeln!(out, "<{kind}>{items}</{kind}>");
    }
}

fn table(out: &mut String, table: &Table) {
    let is_figure = |cell: &str| cell.starts_with(|sign: char| sign.is_ascii_digit() || sign == '-');
    let class = |is_figure: bool| if is_figure { " class=\"figure\"" } else { "" };
    let _ = write!(
        out,
        "<section><h2>{}</h2><table><thead><tr>",
        escape(&table.title)
    );
    for (column, heading) in table.heading.iter().enumerate() {
        // A heading stands where its column's first cell does.
        let first = table.rows.first().and_then(|row| row.cells.get(column));
        let class = class(first.is_some_and(|cell| is_figure(cell)));
        let _ = write!(out, "<th{class}>{}</th>", escape(heading));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in &table.rows {
        out.push_str(if row.good { "<tr>" } else { "<tr class=\"bad\">" });
        for cell in &row.cells {
            let _ = write!(out, "<td{}>{}</td>", class(is_figure(cell)), escape(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></section>\n");
}

fn timeline(out: &mut String, timeline: &Timeline) {
    let _ = writeln!(out, "<section><h2>{}</h2>", escape(&timeline.title));
    for line in &timeline.lines {
        let _ = writeln!(out, "<p>{}</p>", escape(line));
    }
    out.push_str(&picture::inline(timeline));
    if !timeline.marks.is_empty() {
        let seconds = |time: std::time::Duration| time.as_secs_f64() - timeline.zero.as_secs_f64();
        out.push_str("<details><summary>What was done, and when</summary>\n");
        let marks = timeline.marks.iter().map(|mark| {
            let until = mark
                .until
                .map_or_else(String::new, |until| format!(" to {:.3} s", seconds(until)));
            format!("{:.3} s{until}: {}", seconds(mark.at), escape(&mark.text))
        });
        list(out, "ul", marks);
        out.push_str("</details>\n");
    }
    out.push_str("</section>\n");
}
