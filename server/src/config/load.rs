//! From the sources to a [`Config`]: defaults, then the file, then variables, then flags.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::environment::Environment;
use super::given::{Given, Origin, SourceFile};
use super::place::Place;
use super::problem::{Problem, Problems};
use super::raw::{Format, Raw, parse};
use super::setting::{Reader, Setting, Shown};
use super::texts::{Flag, apply_flags, apply_variables, variable_name};
use super::tree::Config;
use super::{about, support, tree_shape, validate};

/// Where a configuration comes from. Later sources win: the file over the defaults, variables over the file, flags over
/// all.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file; `None` means that there is none.
    pub file: Option<PathBuf>,
    /// Variables: `STARLING_…`, then `CENTRIFUGO_…`.
    pub environment: Environment,
    /// Values on the command line.
    pub flags: Vec<Flag>,
}

/// A configuration without a problem, and where each part of it came from.
#[derive(Clone)]
pub struct Loaded {
    /// The options.
    pub config: Config,
    sources: Sources,
    given: Given,
}

/// The effective value of one option, and what there is to know about the option.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Path of the option.
    pub option: String,
    /// The value as JSON; secrets are masked.
    pub value: String,
    /// Where it came from; `None` means the default.
    pub origin: Option<String>,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// What it takes: "a duration such as 25s or 1m30s". Empty for a list of sections.
    pub takes: &'static str,
    /// The variable that sets it, unless it belongs to an item of a list.
    pub variable: Option<String>,
}

impl Sources {
    /// Reads everything.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, not only the first: unknown options and variables, wrong types, values that do not go
    /// together, and options that are not supported yet.
    pub fn load(&self) -> Result<Loaded, Problems> {
        let (given, problems) = self.gather();
        let (config, problems) = read(&given, &self.environment, problems);
        if problems.is_empty() { Ok(Loaded { config, sources: self.clone(), given }) } else { Err(Problems(problems)) }
    }

    /// One tree of all that was given, and what was wrong on the way.
    fn gather(&self) -> (Given, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut given = match self.file.as_ref().map(read_file) {
            None => Given::empty(Origin::Flag(String::new())),
            Some(Ok(given)) => given,
            Some(Err(problem)) => {
                problems.push(problem);
                Given::empty(Origin::Flag(String::new()))
            }
        };
        tree_shape().check(&given, &mut Place::default(), &mut problems);
        // What the file says must be right even where something else overrides it.
        problems.extend(read_values(&mut Config::default(), &given, &self.environment));
        apply_variables(&self.environment, &mut given, &mut problems);
        apply_flags(&self.flags, &mut given, &mut problems);
        (given, problems)
    }
}

/// Parts of the configuration that a reload may change; everything else needs a restart.
const RELOADED: [&str; 7] = [
    "channel.without_namespace",
    "channel.namespaces",
    "channel.publication_data_format",
    "client.token",
    "client.subscription_token",
    "client.allow_anonymous_connect_without_token",
    "client.disallow_anonymous_connection_tokens",
];

impl Loaded {
    /// Reads the same sources again and takes over what may change in a running server: token settings and channel
    /// options. Returns the paths of options that are different now but need a restart.
    ///
    /// # Errors
    ///
    /// As [`Sources::load`]; then nothing has changed.
    pub fn reload(&mut self) -> Result<Vec<String>, Problems> {
        let fresh = self.sources.load()?;
        let mut given = self.given.clone();
        for part in RELOADED {
            let place = Place::from(part);
            match fresh.given.find(&place) {
                Some(value) => given.set(place.steps(), value.clone()),
                None => given.remove(place.steps()),
            }
        }
        // Both sources are right by themselves; together they may still not go: a namespace may need what waits for a
        // restart.
        let (config, problems) = read(&given, &self.sources.environment, Vec::new());
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let waiting = differences(&config, &fresh.config);
        self.config = config;
        self.given = given;
        Ok(waiting)
    }

    /// The effective value of every option, in the order of the tree. A list of sections shows as the options of its
    /// items.
    pub fn explain(&self) -> Vec<Explained> {
        let explain = |shown: &Shown| {
            let value = match &shown.value {
                _ if shown.secret => "\"***\"".into(),
                value => without_credentials(&value.to_string()),
            };
            let origin = self.given.find(&shown.place).map(|given| given.origin.at(&shown.place));
            let pattern = shown.place.pattern();
            let about = about(&pattern);
            Explained {
                option: shown.place.to_string(),
                value,
                origin,
                about: about.as_ref().map_or("", |about| about.text),
                takes: about.as_ref().map_or("", |about| about.takes),
                variable: (!pattern.contains("[]")).then(|| format!("STARLING_{}", variable_name(&pattern))),
            }
        };
        list(&self.config).iter().map(explain).collect()
    }
}

impl fmt::Debug for Loaded {
    /// The sources hold secrets in the clear; the configuration does not show them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Config {
    /// A configuration from JSON, without variables or flags. For tests and embedding.
    ///
    /// # Errors
    ///
    /// As [`Sources::load`].
    pub fn from_json(text: &str) -> Result<Self, Problems> {
        let file = SourceFile { path: "configuration".into(), text: text.into(), format: Format::Json };
        let given = parse_file(file).map_err(|problem| Problems(vec![problem]))?;
        let mut problems = Vec::new();
        tree_shape().check(&given, &mut Place::default(), &mut problems);
        let (config, problems) = read(&given, &Environment::default(), problems);
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }
}

/// The options that were given, and everything that is wrong with them, `problems` first.
fn read(given: &Given, environment: &Environment, mut problems: Vec<Problem>) -> (Config, Vec<Problem>) {
    let mut config = Config::default();
    for problem in read_values(&mut config, given, environment) {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    for problem in validate::validate(&config, given).into_iter().chain(support::refuse(&config, given)) {
        // Where a value could not be read, what follows from the default in its place is of no interest.
        if !problems.iter().any(|known| known.place.is_some() && known.place == problem.place) {
            problems.push(problem);
        }
    }
    (config, problems)
}

/// Takes over what was given; returns what could not be read.
pub(super) fn read_values(config: &mut Config, given: &Given, environment: &Environment) -> Vec<Problem> {
    let mut reader = Reader { environment, place: Place::default(), problems: Vec::new() };
    config.read(given, &mut reader);
    reader.problems
}

fn read_file(path: &PathBuf) -> Result<Given, Problem> {
    let name = path.display().to_string();
    let Some(format) = Format::of(path) else {
        return Err(Problem::at(name, "a configuration file ends in .json, .yaml, .yml or .toml"));
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".into(),
            _ => format!("cannot be read: {error}"),
        };
        Problem::at(name, reason)
    })?;
    parse_file(SourceFile { path: path.clone(), text, format })
}

fn parse_file(file: SourceFile) -> Result<Given, Problem> {
    let name = file.path.display().to_string();
    let raw = parse(&file.text, file.format).map_err(|error| {
        let at = error.line.map_or_else(|| name.clone(), |line| format!("{name}:{line}"));
        Problem::at(at, error.message)
    })?;
    let origin = Origin::File(Arc::new(file));
    match raw {
        Raw::Null => Ok(Given::empty(origin)),
        raw @ Raw::Map(_) => Ok(Given::new(raw, &origin)),
        raw => Err(Problem::at(name, format!("a configuration is a section of options, not {}", raw.describe()))),
    }
}

/// Every option of a configuration with its value.
pub(super) fn list(config: &Config) -> Vec<Shown> {
    let mut list = Vec::new();
    config.show(&Place::default(), &mut list);
    list
}

/// Paths of the options that differ between two configurations.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (list(old), list(new));
    let missing = |from: &[Shown], to: &[Shown]| -> Vec<String> {
        from.iter().filter(|shown| !to.contains(shown)).map(|shown| shown.place.to_string()).collect()
    };
    let mut paths = missing(&new, &old);
    for path in missing(&old, &new) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// A text in which `://user:password@` is masked.
fn without_credentials(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        masked.push_str(before);
        let end = after.find(['"', ' ']).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                masked.push_str("***");
                &after[at..]
            }
            None => after,
        };
    }
    masked.push_str(rest);
    masked
}
