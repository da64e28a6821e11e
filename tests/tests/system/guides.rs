//! Every block of the documentation does what the page says, and every link leads somewhere. CONTRIBUTING.md has the
//! conventions, `page` what becomes of a block; Rust blocks are doctests of the crate `naq`.

mod expected;
mod links;
mod markdown;
mod page;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use markdown::blocks;

/// Makes the list of all pages, and a test of each.
macro_rules! pages {
    ($($test:ident: $path:literal, norun $norun:literal;)+) => {
        /// Each page and how many of its blocks cannot run here.
        const PAGES: &[(&str, usize)] = &[$(($path, $norun)),+];

        $(
            #[tokio::test]
            async fn $test() -> Result<()> {
                check($path, $norun).await
            }
        )+
    };
}

pages! {
    readme: "README.md", norun 4;
    changelog: "CHANGELOG.md", norun 0;
    contributing: "CONTRIBUTING.md", norun 1;
    security: "SECURITY.md", norun 0;
    examples: "crates/naq/examples/README.md", norun 1;
    architecture: "docs/architecture.md", norun 0;
    configuration: "docs/configuration.md", norun 0;
    protocol: "docs/protocol.md", norun 0;
    guide: "docs/guide/README.md", norun 0;
    custom_storage: "docs/guide/custom-storage.md", norun 2;
    dependencies: "docs/guide/dependencies.md", norun 0;
    deploying: "docs/guide/deploying.md", norun 7;
    errors_and_retries: "docs/guide/errors-and-retries.md", norun 0;
    from_one_file_to_a_cluster: "docs/guide/from-one-file-to-a-cluster.md", norun 0;
    handlers: "docs/guide/handlers.md", norun 0;
    operating: "docs/guide/operating.md", norun 1;
    other_languages: "docs/guide/other-languages.md", norun 0;
    quickstart: "docs/guide/quickstart.md", norun 2;
    scheduling: "docs/guide/scheduling.md", norun 0;
    testing: "docs/guide/testing.md", norun 0;
    unique_jobs: "docs/guide/unique-jobs.md", norun 0;
    migrating: "docs/migrating/README.md", norun 0;
    from_apalis: "docs/migrating/from-apalis.md", norun 0;
    from_bullmq: "docs/migrating/from-bullmq.md", norun 1;
    from_celery: "docs/migrating/from-celery.md", norun 0;
    from_python_naq_and_omniq: "docs/migrating/from-python-naq-and-omniq.md", norun 1;
    from_river: "docs/migrating/from-river.md", norun 0;
    from_sidekiq: "docs/migrating/from-sidekiq.md", norun 0;
    durability: "docs/operating/durability.md", norun 0;
    faults: "docs/operating/faults.md", norun 1;
    logging: "docs/operating/logging.md", norun 0;
    metrics: "docs/operating/metrics.md", norun 2;
    permissions: "docs/operating/permissions.md", norun 0;
    speed: "docs/operating/speed.md", norun 3;
    workloads: "docs/operating/workloads.md", norun 1;
    top: "docs/operating/top.md", norun 1;
    tracing: "docs/operating/tracing.md", norun 1;
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests have a parent folder")
}

/// All markdown files of the repository, from its root.
fn markdown_files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type()?.is_dir() {
                // What is built or fetched is not ours.
                folders.extend((name != "target" && !name.starts_with('.')).then_some(path));
            } else if name.ends_with(".md") {
                files.push(path.strip_prefix(root())?.to_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}

async fn check(path: &str, norun: usize) -> Result<()> {
    let text = fs::read_to_string(root().join(path))?;
    let said = blocks(&text).iter().filter(|block| block.has("norun")).count();
    ensure!(said == norun, "{path} has {said} blocks that cannot run; the table of this test says {norun}");
    let problems = page::problems(&text).await.with_context(|| path.to_owned())?;
    let problems: Vec<String> = problems.iter().map(|p| format!("{path}:{}: {}", p.line, p.what)).collect();
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// A page that is in no list would rot.
#[test]
fn every_page_is_checked() -> Result<()> {
    let files = markdown_files()?;
    let is_listed = |file: &Path| PAGES.iter().any(|(path, _)| file == *path);
    let unlisted: Vec<_> = files.iter().filter(|file| !is_listed(file)).collect();
    ensure!(unlisted.is_empty(), "not in the table `pages!` of this test: {unlisted:?}");

    let doctests = fs::read_to_string(root().join("crates/naq/src/guide.rs"))?;
    for (path, _) in PAGES {
        let has_rust = blocks(&fs::read_to_string(root().join(path))?).iter().any(|block| block.language == "rust");
        let included = doctests.contains(&format!("\"../../../{path}\""));
        ensure!(has_rust == included, "{path}: Rust blocks {has_rust}, in crates/naq/src/guide.rs {included}");
    }
    Ok(())
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() -> Result<()> {
    let broken = links::broken(root(), &markdown_files()?)?;
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// Pages that say what is not so, and the line of the block that does. Without these, a runner that runs nothing would
/// pass every page.
#[tokio::test]
async fn what_is_not_as_the_page_says_is_found() -> Result<()> {
    let pages = [
        ("```sh\nfalse\n```", 1),
        ("```sh\ntrue\n```\n\n```sh\necho $unset\n```", 5),
        ("```sh\necho a b\n```\n\n```text\na c\n```", 5),
        ("```sh\necho a; echo b\n```\n\n```text\na\n```", 5),
        ("```sh\necho '{\"a\":1}'\n```\n\n```json\n{\"b\":…}\n```", 5),
        ("```sh\nexit 0\n```\n\n```sh\ntrue\n```", 1),
        ("```sh\n# a.sh\nexit 3\n```\n\n```sh\nbash a.sh\n```", 6),
        ("```yaml\na: [\n```", 1),
        ("```yaml\nworkers:\n  concurency: 3\n```", 1),
        ("```yaml\n# naq.yaml\nhandlers: { a: {} }\n```", 1),
        ("```json\n{\n```", 1),
        ("```jsonl\n{}\n{\n```", 1),
        ("```toml\na = \n```", 1),
        ("```python\ndef f(\n```", 1),
        ("```promql\nsum(a)\n```", 1),
        ("```\na\n```", 1),
        ("```rust,ignore\nfn\n```", 1),
    ];
    for (page, line) in pages {
        let problems = page::problems(page).await?;
        assert_eq!(problems.iter().map(|p| p.line).collect::<Vec<_>>(), [line], "{page}\n{problems:?}");
    }
    Ok(())
}

/// The blocks of a page are one terminal: files, variables, folder and background processes last until its end.
#[tokio::test]
async fn a_page_is_one_terminal() -> Result<()> {
    let page = "\
- in a list, with a program in the background:\n\n  ```sh\n  naq worker start &\n  mkdir work; cd work; name=world\n  ```\n\n\
```python\n# say.py\nimport sys\nprint('hello', sys.argv[1])\nprint('bye')\n```\n\n\
```sh\npython3 say.py $name\ncd ..\nnaq job enqueue naq.echo --args '[1]' --wait 20s\nnaq job result none || echo \"exit code $?\"\n```\n\n\
```text\nhello …rld\n…\n[1]\n…\nexit code 3\n```\n\n\
```sh norun\nsystemctl start naq\n```\n\n```ini norun\na=1\n```\n";
    let problems = page::problems(page).await?;
    assert!(problems.is_empty(), "{problems:?}");
    Ok(())
}
