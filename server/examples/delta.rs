//! Patches for other implementations to apply, and a check of patches that others made.
//!
//! ```text
//! delta make COUNT SEED    prints COUNT lines, the same ones for the same SEED
//! delta check              reads lines; fails at the first patch that does not make its target
//!
//! line                     {"base": "...", "target": "...", "patch": "...", "text": true}
//! ```
//!
//! Base, target and patch are in base64. With `text`, base and target are JSON, and the patch was made for JSON
//! subscribers.

use std::io::{self, BufRead, Write};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use starling_server::delta::{Encoder, apply};

#[derive(Serialize, Deserialize)]
struct Line {
    base: String,
    target: String,
    patch: String,
    #[serde(default)]
    text: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", count, seed] => make(count.parse()?, seed.parse()?),
        ["check"] => check(),
        _ => bail!("usage: delta make COUNT SEED | delta check"),
    }
}

fn make(count: usize, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut encoder = Encoder::default();
    let mut patch = Vec::new();
    let mut out = io::stdout().lock();
    let mut made = 0;
    while made < count {
        let text = rng.random();
        let (base, target) = if text { json_pair(&mut rng) } else { byte_pair(&mut rng) };
        if encoder.encode(&base, &target, text, &mut patch) {
            let [base, target, patch] = [&base, &target, &patch].map(|bytes| BASE64_STANDARD.encode(bytes));
            serde_json::to_writer(&mut out, &Line { base, target, patch, text })?;
            writeln!(out)?;
            made += 1;
        }
    }
    Ok(())
}

fn check() -> Result<()> {
    let mut checked = 0;
    for line in io::stdin().lock().lines() {
        let line: Line = serde_json::from_str(&line?)?;
        let [base, target, patch] = [line.base, line.target, line.patch].map(|text| BASE64_STANDARD.decode(text));
        let (base, target, patch) = (base?, target?, patch?);
        let made = apply(&base, &patch, target.len()).with_context(|| format!("line {}", checked + 1))?;
        ensure!(made == target, "line {}: another target", checked + 1);
        checked += 1;
    }
    println!("{checked}");
    Ok(())
}

/// A list of rows, and the same list after a few things happened to it.
fn json_pair(rng: &mut StdRng) -> (Vec<u8>, Vec<u8>) {
    const WORDS: [&str; 8] = ["alpha", "beta", "é", "è", "日本", "月本", "😀😀", "😁😀"];
    let row = |rng: &mut StdRng| {
        let words: Vec<&str> = (0..rng.random_range(0..6)).map(|_| WORDS[rng.random_range(0..WORDS.len())]).collect();
        serde_json::json!({"id": rng.random_range(0..10_000), "text": words.join(" "), "open": rng.random::<bool>()})
    };
    let mut rows: Vec<serde_json::Value> = (0..rng.random_range(1..20)).map(|_| row(rng)).collect();
    let base = serde_json::json!({"rows": rows}).to_string();
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(0..rows.len());
        match rng.random_range(0..4) {
            0 => rows.insert(at, row(rng)),
            1 => rows[at] = row(rng),
            2 => rows.rotate_left(at),
            _ => rows[at]["id"] = rng.random_range(0..10_000).into(),
        }
    }
    (base.into(), serde_json::json!({"rows": rows}).to_string().into())
}

/// Bytes, few or many different ones, and what is left of them after pieces were copied about.
fn byte_pair(rng: &mut StdRng) -> (Vec<u8>, Vec<u8>) {
    let highest = if rng.random() { u8::MAX } else { 3 };
    let base: Vec<u8> = (0..rng.random_range(1..3000)).map(|_| rng.random_range(0..=highest)).collect();
    let mut target = base.clone();
    for _ in 0..rng.random_range(1..6) {
        let start = rng.random_range(0..base.len());
        let piece = &base[start..rng.random_range(start..=base.len().min(start + 400))];
        let at = rng.random_range(0..=target.len());
        let until = rng.random_range(at..=target.len().min(at + 200));
        target.splice(at..until, piece.iter().copied());
        target.insert(at, rng.random());
    }
    (base, target)
}
