//! Colours of pages and pictures, in light and dark.

use std::fmt::Write;

/// How many colours lanes and members have.
pub(super) const LANE_COLOURS: usize = 8;

/// Class, property, colour on light and on dark ground. Written out for each class, since not every program that draws SVG knows
/// variables of CSS.
const COLOURS: &[(&str, &str, &str, &str)] = &[
    (".paper", "fill", "#ffffff", "#12181f"),
    (".ink", "fill", "#1c2b3a", "#e6edf3"),
    (".soft", "fill", "#4d6072", "#9fb0c0"),
    (".grid", "stroke", "#e1e6eb", "#28323d"),
    (".axis", "stroke", "#8a97a5", "#5c6b7a"),
    (".stall", "fill", "#fbdcc4", "#4a2c16"),
    (".when", "stroke", "#b3541e", "#ff9d5c"),
    (".mark", "fill", "#f2b48a", "#8a4a1c"),
    (".wrong", "stroke", "#c0182b", "#ff6b7a"),
    (".serving", "fill", "#8fd3ac", "#1f6b45"),
    (".helping", "fill", "#c3d9f5", "#2a4468"),
    (".waiting", "fill", "#dfe4e9", "#333e4a"),
    (".changing", "fill", "#f6d978", "#7a6110"),
    (".down", "fill", "#f0a6ad", "#7c2831"),
    (".of0", "fill", "#a9dcbf", "#1d5a3c"),
    (".of1", "fill", "#b4cdf0", "#2b4d80"),
    (".of2", "fill", "#dcc4ea", "#593572"),
    (".of3", "fill", "#f3d3a7", "#70501f"),
    (".of4", "fill", "#a8dedd", "#1c5a59"),
    (".of5", "fill", "#f0bcd3", "#713452"),
    (".of6", "fill", "#d3d9a0", "#555c1a"),
    (".of7", "fill", "#cfc8bf", "#524a41"),
    (".lane0", "stroke", "#1f7a4d", "#4cc38a"),
    (".lane1", "stroke", "#2b5fa8", "#79a9f0"),
    (".lane2", "stroke", "#7d3f9e", "#c692e3"),
    (".lane3", "stroke", "#a8661a", "#e6ac5f"),
    (".lane4", "stroke", "#167c7a", "#4fc6c3"),
    (".lane5", "stroke", "#a82f66", "#ee86b2"),
    (".lane6", "stroke", "#6d7614", "#c3cd58"),
    (".lane7", "stroke", "#6b5d4d", "#bfae9b"),
];

/// What does not depend on the ground.
const SHAPES: &str = ".timeline text{font:11px system-ui,sans-serif}.timeline .name{font-weight:bold;font-size:14px}\
    .grid,.axis{stroke-width:1}.when{stroke-width:1;stroke-dasharray:4 3}\
    .lane{fill:none;stroke-width:3.4;stroke-linecap:round}.wrong{fill:none;stroke-width:1.5}";

/// Of a page around the pictures.
const PAGE: &str = "body{margin:0;font:15px/1.45 system-ui,sans-serif;background:#f4f6f8;color:#1c2b3a}\
    main{max-width:1060px;margin:0 auto;padding:24px 16px}\
    section,header{background:#ffffff;border-radius:10px;padding:14px 20px;margin:0 0 18px;overflow-x:auto}\
    header{border-left:10px solid #1f7a4d}header.broken{border-left-color:#c0182b}\
    h1{font-size:15px;font-weight:normal;margin:0}h2{font-size:18px;margin:4px 0 8px}\
    .word{font-size:30px;font-weight:bold;margin:2px 0 6px;color:#1f7a4d}.broken .word{color:#c0182b}\
    ul,ol{margin:6px 0;padding-left:22px}p{margin:4px 0}\
    table{border-collapse:collapse;width:100%}th,td{padding:5px 10px;text-align:left;border-bottom:1px solid #e1e6eb}\
    th{font-weight:600;font-size:13px}td.figure,th.figure{text-align:right;font-variant-numeric:tabular-nums}\
    tr.bad td{background:#fbe3e5}svg{display:block;width:100%;min-width:720px;height:auto}\
    summary{cursor:pointer}footer{font-size:13px;opacity:.75}\
    @media (prefers-color-scheme:dark){body{background:#0b0f14;color:#e6edf3}section,header{background:#12181f}\
    .word{color:#4cc38a}.broken .word{color:#ff6b7a}th,td{border-bottom-color:#28323d}tr.bad td{background:#4a1d22}}\
    @media print{section{break-inside:avoid}}";

/// Of pictures.
pub(super) fn picture() -> String {
    let mut out = SHAPES.to_owned();
    let mut dark = String::new();
    // Writing to a string cannot fail.
    for (class, property, light, on_dark) in COLOURS {
        let _ = write!(out, "{class}{{{property}:{light}}}");
        let _ = write!(dark, "{class}{{{property}:{on_dark}}}");
    }
    let _ = write!(out, "@media (prefers-color-scheme:dark){{{dark}}}");
    out
}

/// Of whole pages.
pub(super) fn page() -> String {
    format!("{PAGE}{}", picture())
}
