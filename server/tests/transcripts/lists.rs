//! The two lists of scenarios that need not pass, `waiting.txt` and `differs.txt`, beside this file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{diff::Difference, scenario::Golden};

/// The capability of an entry that `--write-waiting` added and nobody has looked at.
const UNSORTED: &str = "unsorted";

#[derive(Default)]
pub(crate) struct Lists {
    /// Scenarios that cannot pass yet, with the capability that each waits for.
    waiting: BTreeMap<String, String>,
    /// Scenarios in which this server is different on purpose.
    differs: BTreeMap<String, Differs>,
}

/// A difference on purpose.
pub(crate) struct Differs {
    /// Where it shows; nowhere else may anything differ. None: the whole transcript is another.
    places: Option<Vec<Place>>,
    why: String,
}

/// A step by its number, or what comes after the last one (`rest`).
#[derive(PartialEq)]
enum Place {
    Step(usize),
    Rest,
}

impl Lists {
    pub(crate) fn load() -> Result<Self> {
        let mut differs = BTreeMap::new();
        for (name, text) in read("differs.txt")? {
            let differ = Differs::parse(&text).with_context(|| format!("differs.txt: {name}"))?;
            differs.insert(name, differ);
        }
        Ok(Self { waiting: read("waiting.txt")?, differs })
    }

    /// The capability that a scenario waits for.
    pub(crate) fn waits_for(&self, name: &str) -> Option<&str> {
        self.waiting.get(name).map(String::as_str)
    }

    pub(crate) fn differs(&self, name: &str) -> Option<&Differs> {
        self.differs.get(name)
    }

    /// What is wrong with the lists themselves.
    pub(crate) fn problems(&self, goldens: &[impl AsRef<Golden>]) -> Vec<String> {
        let find = |name: &str| goldens.iter().map(AsRef::as_ref).find(|golden| golden.scenario.name == name);
        let mut problems = Vec::new();
        let waiting = self.waiting.keys().map(|name| ("waiting.txt", name));
        for (list, name) in waiting.chain(self.differs.keys().map(|name| ("differs.txt", name))) {
            match find(name) {
                None => problems.push(format!("{list}: there is no scenario {name}")),
                Some(golden) if list == "differs.txt" && golden.scenario.quirk.is_some() => {
                    problems.push(format!("{list}: {name} shows a quirk and may differ anyway: take it off the list"));
                }
                Some(_) => {}
            }
        }
        for (name, capability) in &self.waiting {
            if capability == UNSORTED {
                problems.push(format!("waiting.txt: say which capability {name} waits for, or make it pass"));
            }
            if self.differs.contains_key(name) {
                problems.push(format!("{name} is on both lists"));
            }
        }
        problems
    }

    /// Writes `waiting.txt` anew: of the scenarios that were played those that failed, all others as they were.
    pub(crate) fn write_waiting(&self, played: &BTreeMap<String, bool>) -> Result<usize> {
        let path = path("waiting.txt");
        let present = fs::read_to_string(&path)?;
        let mut text: String = present
            .lines()
            .take_while(|line| line.starts_with('#') || line.is_empty())
            .map(|l| format!("{l}\n"))
            .collect();
        let mut names: Vec<_> = self.waiting.keys().filter(|name| !played.contains_key(*name)).collect();
        names.extend(played.iter().filter(|(_, failed)| **failed).map(|(name, _)| name));
        names.sort();
        for name in &names {
            text.push_str(&format!("{name:<44} {}\n", self.waits_for(name).unwrap_or(UNSORTED)));
        }
        fs::write(&path, text)?;
        Ok(names.len())
    }
}

impl Differs {
    fn parse(text: &str) -> Result<Self> {
        let (places, why) = text.split_once(char::is_whitespace).context("steps, then the reason")?;
        let place = |word: &str| match word {
            "rest" => Ok(Place::Rest),
            number => Ok(Place::Step(number.parse().with_context(|| format!("{number} is no step"))?)),
        };
        let places = match places {
            "all" => None,
            places => Some(places.split(',').map(place).collect::<Result<_>>()?),
        };
        Ok(Self { places, why: why.trim().to_owned() })
    }

    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// Whether a server that refuses to start is what was meant.
    pub(crate) fn covers_everything(&self) -> bool {
        self.places.is_none()
    }

    pub(crate) fn covers(&self, difference: &Difference) -> bool {
        let place = difference.step.map_or(Place::Rest, Place::Step);
        self.places.as_ref().is_none_or(|places| places.contains(&place))
    }
}

/// Lines of a name and a text; empty ones and those that begin with `#` mean nothing.
fn read(file: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path(file)).with_context(|| file.to_owned())?;
    let mut entries = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once(char::is_whitespace) else {
            bail!("{file}: {line} stands there without a reason");
        };
        ensure!(entries.insert(name.to_owned(), rest.trim().to_owned()).is_none(), "{file}: {name} is there twice");
    }
    Ok(entries)
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(file)
}
