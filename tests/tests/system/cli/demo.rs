//! `naq demo`: the whole thing in one command, checked against a count made here.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use naq_tests::NaqBinary;
use serde_json::Value;

use crate::site::COMMAND_LIMIT;

#[tokio::test]
async fn the_demo_counts_the_words_of_a_directory() -> Result<()> {
    let home = tempfile::tempdir()?;
    let texts = home.path().join("texts");
    fs::create_dir_all(texts.join("below"))?;
    fs::write(texts.join("one.txt"), "one two  three\nfour")?;
    fs::write(texts.join("below/two.md"), "fünf sechs")?;
    fs::write(texts.join("empty"), "")?;
    fs::write(texts.join("picture"), [0xff, 0xd8, 0x00, 0x10])?;
    let naq = NaqBinary::in_dir(home.path())?;
    let args = ["demo", &texts.to_string_lossy(), "--output", "json"];
    for round in 0..2 {
        let finished = naq.run(&args, COMMAND_LIMIT).await?;
        assert_eq!(finished.code(), Some(0), "{finished:#?}");
        let said = finished.json()?;
        assert_eq!((&said["files"], &said["words"]), (&Value::from(3), &Value::from(6)), "round {round}: {said}");
        assert_eq!((&said["not_text"], &said["failed"]), (&Value::from(1), &Value::from(0)), "{said}");
        let counts = said["counts"].as_array().context("counts")?;
        let of = |name: &str| {
            let count = counts.iter().find(|count| count["path"].as_str().is_some_and(|path| path.ends_with(name)));
            count.map(|count| count["words"].clone()).unwrap_or_default()
        };
        assert_eq!((of("one.txt"), of("two.md"), of("empty")), (4.into(), 2.into(), 0.into()), "{said}");
        ensure!(said["jobs_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{said}");
    }
    let table = naq.run(&args[..2], COMMAND_LIMIT).await?;
    assert_eq!(table.code(), Some(0), "{table:#?}");
    assert!(table.stdout.contains("one.txt") && table.stdout.contains('6'), "{table:#?}");

    let absent = naq.run(&["demo", "absent"], COMMAND_LIMIT).await?;
    assert!(absent.code().is_some_and(|code| code == 1 || code == 2), "{absent:#?}");
    assert!(absent.stderr.contains("absent"), "{absent:#?}");
    Ok(())
}
