//! `docs/configuration.md` is made of the default file, so that what is documented is what is in force.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use naq_config::{DEFAULT_CONFIG, Environment};

/// What stands above the tables.
const HEAD: &str = "\
<!-- Made of crates/naq-config/default-config.yaml by its test `the_reference_page_is_current`. -->

# Configuration

`naq system generate-config` prints a commented file with every setting; a file needs only the lines that differ. `naq system config`
prints what is in effect and where each value comes from, `naq system config --validate` everything that is wrong.

Lowest to highest: the defaults below, `/etc/naq/config.yaml`, `~/.naq/config.yaml`, `./naq.yaml` (or `naq.yml`, `naq.toml`;
`--config FILE` instead of all three), the section `environments.$NAQ_ENVIRONMENT` of those files, variables, flags.

Every setting has a variable: `workers.shutdown_timeout` is `NAQ_WORKERS__SHUTDOWN_TIMEOUT`. Durations are `250ms`, `5s`, `10m`, `1h30m`,
`7days` or a number of seconds; sizes a number of bytes or `64KiB`, `100MB`, `1GB`. `${NAME}` and `${NAME:default}` in a value put in a
variable; `$${` writes `${` itself.

A running worker reads its configuration again on SIGHUP, and takes at once what is marked [reload]:
[operating.md](guide/operating.md#changing-settings-of-a-running-worker).
";

/// One part of the page.
#[derive(Default)]
struct Section {
    name: String,
    about: String,
    rows: Vec<[String; 3]>,
    example: String,
}

/// Takes the default file apart.
fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let (mut comment, mut fresh, mut nested) = (String::new(), false, String::new());
    for line in DEFAULT_CONFIG.lines() {
        let (indent, text) = (line.len() - line.trim_start().len(), line.trim_start());
        let example = text
            .strip_prefix('#')
            .filter(|rest| !rest.is_empty() && (!rest.starts_with(' ') || rest.starts_with("  ")));
        if text.is_empty() || text == "#" {
            comment.clear();
        } else if let Some(example) = example {
            if indent == 0 && !example.starts_with(' ') {
                let (about, name) = (std::mem::take(&mut comment), example.trim_end_matches(':').to_owned());
                sections.push(Section { name, about, ..Section::default() });
            }
            let section = sections.last_mut().unwrap();
            if indent > 0 && section.example.is_empty() {
                writeln!(section.example, "{}:", section.name).unwrap();
            }
            if indent > 0 && !comment.is_empty() {
                writeln!(section.example, "  # {}", std::mem::take(&mut comment)).unwrap();
            }
            writeln!(section.example, "{}{example}", &line[..indent]).unwrap();
        } else if let Some(words) = text.strip_prefix("# ") {
            if fresh {
                comment.clear();
            }
            let gap = if comment.is_empty() { "" } else { " " };
            write!(comment, "{gap}{words}").unwrap();
        } else if let (0, Some(name)) = (indent, text.strip_suffix(':')) {
            let (about, name) = (std::mem::take(&mut comment), name.to_owned());
            sections.push(Section { name, about, ..Section::default() });
        } else if let Some(name) = text.strip_suffix(':') {
            nested = format!("{name}.");
            if fresh {
                comment.clear();
            }
        } else {
            let (key, value) = text.split_once(": ").unwrap();
            let section = sections.last_mut().unwrap();
            let within = if indent > 2 { nested.as_str() } else { "" };
            let value = if value == "null" { "unset".to_owned() } else { format!("`{value}`") };
            let key = format!("`{}.{within}{key}`", section.name);
            section.rows.push([key, value, comment.clone()]);
        }
        // A comment is that of every setting up to the next one.
        fresh = !text.starts_with('#');
    }
    sections
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for Section { name, about, rows, example } in sections() {
        write!(page, "\n## {name}\n").unwrap();
        if !about.is_empty() {
            write!(page, "\n{about}\n").unwrap();
        }
        if !rows.is_empty() {
            page.push_str("\n| setting | default | |\n|---|---|---|\n");
        }
        for [key, value, about] in rows {
            writeln!(page, "| {key} | {value} | {} |", about.replace('|', "\\|")).unwrap();
        }
        if !example.is_empty() {
            write!(page, "\n```yaml\n{example}```\n").unwrap();
        }
    }
    page.push_str("\n## Variables with names of their own\n\n| setting | variables, the strongest last |\n|---|---|\n");
    let mut variables: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (variable, key) in Environment::named() {
        variables.entry(key).or_default().push(format!("`{variable}`"));
    }
    for (key, names) in variables {
        writeln!(page, "| `{key}` | {} |", names.join(", ")).unwrap();
    }
    page
}

#[test]
fn the_reference_page_is_current() {
    let page = page();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if fs::read_to_string(&committed).unwrap_or_default() != page {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configuration.md");
        fs::write(&made, page).unwrap();
        panic!("docs/configuration.md is not made of the default file; the one that is: {}", made.display());
    }
}
