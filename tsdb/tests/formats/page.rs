//! A page of `docs/formats`, and what is taken out of it: fenced examples by the words after their fence, and
//! tables by their heading.

use std::path::Path;

/// A page's text.
pub fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All examples whose fence says these words.
pub fn examples(name: &str, fence: &str) -> Vec<String> {
    let text = page(name);
    let open = format!("```{fence}");
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == open {
            let inside: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
            found.push(inside.join("\n"));
        }
    }
    found
}

/// The one example whose fence says these words.
pub fn example(name: &str, fence: &str) -> String {
    let mut found = examples(name, fence);
    assert_eq!(found.len(), 1, "{name} has one example ```{fence}");
    found.remove(0)
}

/// The bytes of a hex dump: pairs of digits, and after two spaces what they mean.
pub fn bytes(name: &str, fence: &str) -> Vec<u8> {
    let text = example(name, fence);
    let digits = text.lines().flat_map(|line| line.split("  ").next().unwrap_or("").split(' '));
    digits.map(|d| u8::from_str_radix(d, 16).unwrap_or_else(|e| panic!("{name}: {d:?}: {e}"))).collect()
}

/// What a hex dump in a page would have to say.
pub fn dump(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

/// A JSON text without the white space outside its strings.
pub fn compact(json: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    json.chars()
        .filter(|c| {
            let keep = inside || !c.is_ascii_whitespace();
            inside ^= *c == '"' && !escaped;
            escaped = inside && *c == '\\' && !escaped;
            keep
        })
        .collect()
}

/// The rows of the first table after a heading, header and rule left out, cells without the back quotes
/// around them.
pub fn table(name: &str, heading: &str) -> Vec<Vec<String>> {
    let text = page(name);
    let (_, after) = text
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("{name} has no heading {heading:?}"));
    let rows = after.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().to_string()).collect();
    rows.skip(2).map(cells).collect()
}
