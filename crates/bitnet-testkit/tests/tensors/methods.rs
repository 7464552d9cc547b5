//! The public methods of `BitNetTensor`, read from the sources of bitnet-core: `pub fn` in `impl BitNetTensor`, and the
//! names passed to macros that expand to such a block.
//!
//! A line parser is enough, because the sources are formatted by rustfmt.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The methods of one file.
pub struct Section {
    /// File, from the folder of sources.
    pub file: String,
    /// First words of the file's module documentation.
    pub title: String,
    pub methods: Vec<Method>,
}

#[derive(Debug, Clone)]
pub struct Method {
    pub name: String,
    /// First sentence of its documentation, in one line.
    pub summary: String,
    /// PyTorch's name, from the documentation.
    pub torch: Option<String>,
    /// Whether it modifies the tensor.
    pub mutates: bool,
}

/// All files with methods, in the order of [`ORDER`].
pub fn sections(folder: &Path) -> Vec<Section> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    let texts: Vec<(String, String)> = files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    let macros: BTreeSet<String> = texts.iter().flat_map(|(_, text)| method_macros(text)).collect();
    let mut sections: Vec<Section> = texts
        .iter()
        .map(|(file, text)| Section { file: file.clone(), title: title(text), methods: methods(text, &macros) })
        .filter(|section| !section.methods.is_empty())
        .collect();
    let place = |file: &str| ORDER.iter().position(|folder| file.starts_with(folder)).unwrap_or(ORDER.len());
    sections.sort_by(|a, b| (place(&a.file), &a.file).cmp(&(place(&b.file), &b.file)));
    sections
}

/// Folders in reading order.
const ORDER: [&str; 4] = ["tensor/", "ops/", "linalg/", "neural/"];

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            collect(&path, files);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

/// The module's documentation up to the first mark that ends a clause.
fn title(text: &str) -> String {
    let doc: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let doc = doc.join(" ");
    let end = doc.find([':', ';', '.']).unwrap_or(doc.len());
    doc[..end].to_owned()
}

/// Blocks of lines from one at the margin that `starts` to the brace that closes it at the margin.
fn blocks(text: &str, starts: impl Fn(&str) -> bool) -> Vec<Vec<&str>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if starts(line) {
            let mut block = vec![line];
            block.extend(lines.by_ref().take_while(|line| *line != "}"));
            blocks.push(block);
        }
    }
    blocks
}

/// Macros whose expansion is a block of methods.
fn method_macros(text: &str) -> Vec<String> {
    blocks(text, |line| line.starts_with("macro_rules! "))
        .into_iter()
        .filter(|block| {
            let body = block.join("\n");
            body.contains("BitNetTensor {") && body.contains("pub fn $")
        })
        .map(|block| block[0]["macro_rules! ".len()..].trim_end_matches(" {").to_owned())
        .collect()
}

fn methods(text: &str, macros: &BTreeSet<String>) -> Vec<Method> {
    let called = |line: &str| line.split_once("! {").is_some_and(|(name, _)| macros.contains(name));
    let mut methods = Vec::new();
    for block in blocks(text, |line| line == "impl BitNetTensor {" || called(line)) {
        match block[0] {
            "impl BitNetTensor {" => written_out(&block[1..], &mut methods),
            _ => by_macro(&block[1..], &mut methods),
        }
    }
    methods
}

fn written_out(lines: &[&str], methods: &mut Vec<Method>) {
    let mut doc = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        if let Some(text) = line.strip_prefix("    ///") {
            doc.push(text.trim());
        } else if let Some(rest) = line.strip_prefix("    pub fn ") {
            let name = rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next().unwrap();
            let end = (i..lines.len()).find(|&end| lines[end].ends_with('{')).unwrap_or(i);
            let mutates = lines[i..=end].join(" ").contains("&mut self");
            methods.push(Method { mutates, ..method(name, &doc) });
            doc.clear();
        } else if !line.starts_with("    #[") {
            doc.clear();
        }
    }
}

/// Entries `docs name name_ name_into => ...;`, the docs as comments or as one string.
fn by_macro(lines: &[&str], methods: &mut Vec<Method>) {
    let mut doc: Vec<String> = Vec::new();
    let mut entry = String::new();
    for line in lines.iter().map(|line| line.trim()) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim().to_owned());
            continue;
        }
        let mut rest = line;
        if let Some((before, string)) = rest.split_once('"') {
            let (string, after) = string.rsplit_once('"').expect("a string ends where it begins");
            entry.push_str(before);
            doc.push(string.to_owned());
            rest = after;
        }
        entry.push_str(rest);
        entry.push(' ');
        if let Some((head, _)) = entry.split_once("=>").filter(|_| entry.trim_end().ends_with(';')) {
            let doc: Vec<&str> = doc.iter().map(String::as_str).collect();
            let names = head.split(|c: char| c != '_' && !c.is_alphanumeric()).filter(|name| !name.is_empty());
            methods.extend(names.map(|name| method(name, &doc)));
        } else {
            continue;
        }
        doc.clear();
        entry.clear();
    }
}

fn method(name: &str, doc: &[&str]) -> Method {
    let text: Vec<&str> = doc.iter().copied().take_while(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let text = text.join(" ");
    let torch = text.split_once("`torch.").map(|(_, rest)| rest.split('`').next().unwrap_or_default().to_owned());
    let ends = |(i, _): &(usize, &str)| !text[..*i].ends_with('.');
    let end = text.match_indices(". ").find(ends).or_else(|| text.match_indices("; ").next());
    let end = end.map_or(text.len(), |(i, _)| i);
    let mut summary = text[..end].trim_end_matches('.').to_owned();
    // It has its own column.
    while let Some((before, rest)) = summary.split_once(" (`torch.") {
        let Some((_, after)) = rest.split_once(')') else { break };
        summary = format!("{before}{after}");
    }
    Method {
        name: name.to_owned(),
        summary: unlinked(&summary),
        torch: torch.map(|name| format!("torch.{name}")),
        mutates: false,
    }
}

/// Text without rustdoc's links.
fn unlinked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((label, after)) = link.split_once(']') else { break };
        let is_link = label.starts_with('`') || after.starts_with('(');
        let after =
            after.strip_prefix('(').filter(|_| is_link).and_then(|a| a.split_once(')')).map_or(after, |(_, a)| a);
        out += before;
        out += &if is_link { label.to_owned() } else { format!("[{label}]") };
        rest = after;
    }
    out + rest
}
