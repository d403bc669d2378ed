//! What loading promises: what is taken, what is refused and how it is said.

use std::collections::BTreeMap;
use std::time::Duration;

use super::shape::{Shape, Written};
use super::texts::variable_name;
use super::*;

fn json(text: &str) -> Result<Config, Problems> {
    Config::from_json(text)
}

fn refused(text: &str) -> String {
    json(text).expect_err("the configuration must be refused").to_string()
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let environment = variables.iter().copied().collect();
    Sources { environment, ..Sources::default() }.load().map(|loaded| loaded.config)
}

fn from_flags(flags: &[(&str, &str)]) -> Result<Config, Problems> {
    let flags = flags.iter().map(|(option, value)| flag(option, value)).collect();
    Sources { flags, ..Sources::default() }.load().map(|loaded| loaded.config)
}

fn flag(option: &str, value: &str) -> Flag {
    Flag { option: option.into(), value: value.into(), written: format!("--set {option}={value}") }
}

/// A file that lives as long as the test.
fn file(extension: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("config.{extension}"));
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// Every option of the tree that is a single one, not of an item of a list.
fn options() -> Vec<(String, Written)> {
    let shape = tree_shape();
    let mut options = Vec::new();
    shape.walk("", &mut |pattern, field| {
        if let Shape::Leaf(leaf) = &field.shape {
            options.push((pattern.to_owned(), leaf.written));
        }
    });
    options
}

/// JSON with one value at a path; items of lists get a name.
fn nested(pattern: &str, value: &str) -> String {
    let mut text = value.to_owned();
    for part in pattern.rsplit('.') {
        text = match part.strip_suffix("[]") {
            Some(key) => format!("{{\"{key}\": [{text}]}}"),
            None => format!("{{\"{part}\": {text}}}"),
        };
    }
    text
}

// === the tree ===

#[test]
fn nothing_given_means_the_defaults() {
    assert_eq!(json("{}").unwrap(), Config::default());
    assert_eq!(Sources::default().load().unwrap().config, Config::default());
}

#[test]
fn every_section_takes_an_explicit_nothing() {
    assert_eq!(json(r#"{"health": null, "client": {"ping_interval": null}}"#).unwrap(), Config::default());
}

#[test]
fn no_two_options_share_a_variable() {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (pattern, _) in options() {
        if let Some(other) = names.insert(variable_name(&pattern), pattern.clone()) {
            panic!("`{pattern}` and `{other}` have the same variable");
        }
    }
}

#[test]
fn every_name_on_the_lists_of_what_is_missing_exists() {
    let shape = tree_shape();
    for entry in support::entries(true) {
        assert!(shape.find(&entry).is_some(), "{entry}");
    }
}

// === unknown options ===

#[test]
fn every_single_character_typo_in_every_option_is_refused_with_the_right_suggestion() {
    let shape = tree_shape();
    let patterns = shape.patterns();
    let mut tried = 0;
    for pattern in &patterns {
        let last = pattern.rsplit('.').next().unwrap();
        let parent = &pattern[..pattern.len() - last.len()];
        for typo in typos(last) {
            let wrong = format!("{parent}{typo}");
            if patterns.contains(&wrong) || typo.is_empty() {
                continue;
            }
            let mut problems = Vec::new();
            let text = nested(&wrong, "null");
            let raw = raw::parse(&text, Format::Json).unwrap();
            let given = given::Given::new(raw, &given::Origin::Flag("test".into()));
            shape.check(&given, &mut place::Place::default(), &mut problems);
            assert_eq!(problems.len(), 1, "{wrong}");
            let said = problems[0].to_string();
            let (_, suggested) = said.split_once("Did you mean `").unwrap_or_else(|| panic!("{wrong}: {said}"));
            // Where a typo is as near to another name (`tls` and `xls`…), any name at the same distance will do.
            let suggested = suggested.trim_end_matches("`?").replace("[0]", "[]");
            assert!(patterns.contains(&suggested), "{wrong}: {said}");
            if typo.len() > 4 && last.len() > 4 {
                assert!(suggested.starts_with(parent), "{wrong}: {said}");
            }
            tried += 1;
        }
    }
    assert!(tried > 10_000, "only {tried} typos were tried");
}

/// One slip at every position of a word, of every kind in turn: leave out, double, swap, replace, add, wrong case.
fn typos(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut typos = Vec::new();
    for at in 0..letters.len() {
        let (before, after): (String, String) = (letters[..at].iter().collect(), letters[at + 1..].iter().collect());
        let (letter, next) = (letters[at], letters.get(at + 1).copied().unwrap_or('x'));
        let rest: String = letters.iter().skip(at + 2).collect();
        typos.push(match (at + word.len()) % 6 {
            0 => format!("{before}{after}"),
            1 => format!("{before}{letter}{letter}{after}"),
            2 => format!("{before}{next}{letter}{rest}"),
            3 => format!("{before}q{after}"),
            4 => format!("{before}_{letter}{after}"),
            _ => format!("{before}{}{after}", letter.to_ascii_uppercase()),
        });
    }
    typos.retain(|typo| typo != word);
    typos
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_one() {
    assert_eq!(
        refused(r#"{"client": {"alowed_origins": []}}"#),
        "configuration:1: `client.alowed_origins` is not an option. Did you mean `client.allowed_origins`?"
    );
    assert_eq!(
        refused(r#"{"channel": {"namespaces": [{"name": "chat", "histroy_size": 1}]}}"#),
        "configuration:1: `channel.namespaces[chat].histroy_size` is not an option. \
         Did you mean `channel.namespaces[chat].history_size`?"
    );
}

#[test]
fn a_known_name_in_the_wrong_section_is_recognised() {
    let said = refused(r#"{"allowed_origins": ["*"]}"#);
    assert!(said.ends_with("Did you mean `client.allowed_origins`?"), "{said}");
}

#[test]
fn a_name_that_was_cut_short_is_recognised() {
    let said = refused(r#"{"client": {"pingg": "1s"}}"#);
    assert!(said.ends_with("Did you mean `client.ping_interval`?"), "{said}");
}

#[test]
fn all_problems_are_told_at_once() {
    let said = refused(r#"{"colour": 1, "health": {"enabled": "sometimes"}, "client": {"ping_interval": "25"}}"#);
    assert_eq!(said.lines().count(), 3, "{said}");
}

// === types ===

#[test]
fn every_option_refuses_what_it_does_not_take() {
    for (pattern, written) in options() {
        let wrong = match written {
            Written::Text => "[1]",
            Written::Switch => "\"sometimes\"",
            Written::Number => "\"many\"",
            Written::List => "{\"a\": 1}",
            Written::Map => "\"a=b\"",
        };
        let raw = raw::parse(&nested(&pattern, wrong), Format::Json).unwrap();
        let given = given::Given::new(raw, &given::Origin::Flag("test".into()));
        let said = load::read_values(&mut Config::default(), &given, &Environment::default());
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        let expected = format!("`{}` takes ", pattern.replace("[]", "[0]"));
        assert!(said.len() == 1 && said[0].contains(&expected), "{pattern}: {said:?}");
    }
}

#[test]
fn every_section_refuses_what_is_no_section() {
    let mut sections = Vec::new();
    let shape = tree_shape();
    shape.walk("", &mut |pattern, field| match field.shape {
        Shape::Section(_) => sections.push((pattern.to_owned(), "is a section")),
        Shape::Items(_) => sections.push((pattern.to_owned(), "takes a list of sections")),
        Shape::Leaf(_) => {}
    });
    for (pattern, expected) in sections {
        let said = refused(&nested(&pattern, "5"));
        assert!(said.contains(&format!("`{}` {expected}", pattern.replace("[]", "[0]"))), "{pattern}: {said}");
    }
}

#[test]
fn numbers_have_ranges() {
    assert_eq!(
        refused(r#"{"http_server": {"port": 65536}}"#),
        "configuration:1: `http_server.port` takes a whole number from 0 to 65535, not 65536"
    );
    assert!(refused(r#"{"client": {"channel_limit": -1}}"#).contains("not -1"));
    assert!(refused(r#"{"client": {"channel_limit": 1.5}}"#).contains("not 1.5"));
}

#[test]
fn a_text_that_is_exactly_the_value_is_taken_as_from_a_template() {
    let config =
        json(r#"{"http_server": {"port": "8001", "internal_port": 9001}, "health": {"enabled": "true"}}"#).unwrap();
    assert_eq!(config.http_server.port, 8001);
    assert_eq!(config.http_server.internal_port, Some(9001));
    assert!(config.health.enabled);
}

#[test]
fn a_number_where_a_text_is_expected_is_refused_since_it_may_have_lost_its_zeros() {
    let said = refused(r#"{"http_api": {"key": 123}}"#);
    assert!(said.contains("`http_api.key` takes a text: put the number in quotes"), "{said}");
    assert!(!said.contains("123"), "{said}");
}

#[test]
fn one_text_is_a_list_too() {
    let config = json(r#"{"client": {"allowed_origins": "https://a.example https://b.example"}}"#).unwrap();
    assert_eq!(config.client.allowed_origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn words_are_checked() {
    assert_eq!(
        refused(r#"{"engine": {"type": "carrier_pigeon"}}"#),
        "configuration:1: `engine.type` takes \"memory\" or \"redis\", not \"carrier_pigeon\""
    );
    assert!(refused(r#"{"log": {"level": "loud"}}"#).contains("`log.level` takes"));
    assert!(
        refused(r#"{"http_api": {"error_mode": "loud"}}"#)
            .contains("`http_api.error_mode` takes \"transport\" or an empty text")
    );
    assert_eq!(json(r#"{"http_api": {"error_mode": ""}}"#).unwrap().http_api.error_mode, ErrorMode::InBody);
    assert_eq!(json(r#"{"http_api": {"error_mode": "transport"}}"#).unwrap().http_api.error_mode, ErrorMode::Transport);
}

// === zero, negative, absent ===

#[test]
fn a_zero_interval_is_the_default_and_a_negative_one_is_off() {
    let intervals = |text: &str| {
        let client = json(text).unwrap().client;
        (client.ping_interval, client.pong_timeout)
    };
    let (usual, patience) = (Some(Duration::from_secs(25)), Some(Duration::from_secs(8)));
    assert_eq!(intervals(r#"{"client": {"ping_interval": 0, "pong_timeout": "0s"}}"#), (usual, patience));
    assert_eq!(intervals(r#"{"client": {"ping_interval": -1, "pong_timeout": -2}}"#), (None, None));
    assert_eq!(intervals(r#"{"client": {"ping_interval": "-1s", "pong_timeout": "-2s"}}"#), (None, None));
    assert_eq!(intervals(r#"{"client": {"ping_interval": "-1s"}}"#), (None, patience));
    assert!(refused(r#"{"client": {"ping_interval": "-1"}}"#).contains("takes a duration such as 25s"));
    assert!(refused(r#"{"client": {"ping_interval": 25}}"#).contains("takes a duration such as 25s or 1m30s, not 25"));
}

#[test]
fn pings_must_be_further_apart_than_the_patience_for_a_pong() {
    assert_eq!(
        refused(r#"{"client": {"ping_interval": "5s", "pong_timeout": "5s"}}"#),
        "configuration:1: `client.pong_timeout` is 5s, but must be shorter than `client.ping_interval`, which is 5s"
    );
    assert!(json(r#"{"client": {"ping_interval": "-1s", "pong_timeout": "5s"}}"#).is_ok());
}

#[test]
fn zero_and_the_empty_text_mean_absent() {
    let config = json(
        r#"{"client": {"connection_limit": 0, "token": {"hmac_secret_key": "",
            "hmac_previous_secret_key_valid_until": 0}},
            "http_server": {"internal_port": "", "tls": {"cert_pem": ""}},
            "channel": {"publication_data_format": ""}}"#,
    );
    assert_eq!(config.unwrap(), Config::default());
}

#[test]
fn zero_stands_for_the_default_where_zero_makes_no_sense() {
    let config = json(
        r#"{"client": {"stale_close_delay": "0s", "queue_max_size": 0, "channel_limit": 0},
            "websocket": {"message_size_limit": 0, "write_timeout": 0}, "channel": {"max_length": 0}}"#,
    );
    assert_eq!(config.unwrap(), Config::default());
}

// === variables ===

#[test]
fn variables_set_options_by_their_type() {
    let config = from_variables(&[
        ("STARLING_HTTP_SERVER_PORT", "0x1F90"),
        ("STARLING_HEALTH_ENABLED", "T"),
        ("STARLING_CLIENT_PING_INTERVAL", "15s"),
        ("STARLING_CLIENT_ALLOWED_ORIGINS", "https://one.example  https://two.example"),
        ("STARLING_CLIENT_TOKEN_HMAC_SECRET_KEY", "0123"),
        ("STARLING_HTTP_API_KEY", "true"),
        ("STARLING_NODE_NAME", "1e3"),
        ("STARLING_LOG_LEVEL", "debug"),
    ])
    .unwrap();
    assert_eq!(config.http_server.port, 8080);
    assert!(config.health.enabled);
    assert_eq!(config.client.ping_interval, Some(Duration::from_secs(15)));
    assert_eq!(config.client.allowed_origins, ["https://one.example", "https://two.example"]);
    assert_eq!(config.client.token.hmac_secret_key.unwrap().expose(), "0123");
    assert_eq!(config.http_api.key.unwrap().expose(), "true");
    assert_eq!(config.node.name.as_deref(), Some("1e3"));
    assert_eq!(config.log.level, LogLevel::Debug);
}

#[test]
fn every_option_has_a_variable_that_sets_it() {
    for prefix in ["STARLING_", "CENTRIFUGO_"] {
        let options = options().into_iter().filter(|(pattern, _)| !pattern.contains("[]"));
        let wrong = options.map(|(pattern, written)| match written {
            Written::Switch => (pattern, "sometimes"),
            Written::Number => (pattern, "many"),
            Written::Map => (pattern, "no JSON"),
            // Most texts are taken; that the variable is known shows in no complaint about it.
            Written::Text | Written::List => (pattern, "x"),
        });
        let wrong: Vec<(String, String, &str)> =
            wrong.map(|(pattern, value)| (format!("{prefix}{}", variable_name(&pattern)), pattern, value)).collect();
        let variables: Vec<(&str, &str)> = wrong.iter().map(|(name, _, value)| (name.as_str(), *value)).collect();
        let said = from_variables(&variables).unwrap_err().to_string();
        assert!(!said.contains("no option has this variable"), "{said}");
        for (name, pattern, value) in wrong {
            let complaint = format!("{name}: `{pattern}` ");
            assert!(value == "x" || said.lines().any(|line| line.starts_with(&complaint)), "{name}");
        }
    }
}

#[test]
fn our_variable_wins_over_the_same_one_of_centrifugo() {
    let variables = [("CENTRIFUGO_NODE_NAME", "theirs"), ("STARLING_NODE_NAME", "ours")];
    assert_eq!(from_variables(&variables).unwrap().node.name.as_deref(), Some("ours"));
    assert_eq!(from_variables(&variables[..1]).unwrap().node.name.as_deref(), Some("theirs"));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let (_folder, path) = file("json", r#"{"http_api": {"key": "from-file"}}"#);
    let environment = [("STARLING_HTTP_API_KEY", "")].into_iter().collect();
    let config = Sources { file: Some(path), environment, flags: vec![] }.load().unwrap().config;
    assert_eq!(config.http_api.key.unwrap().expose(), "from-file");
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let (_folder, path) = file("toml", "[http_server]\nport = 1\naddress = \"file\"\n[node]\nname = \"file\"\n");
    let environment: Environment =
        [("STARLING_HTTP_SERVER_PORT", "2"), ("STARLING_HTTP_SERVER_ADDRESS", "variable")].into_iter().collect();
    let sources = Sources { file: Some(path), environment, flags: vec![flag("http_server.port", "3")] };
    let config = sources.load().unwrap().config;
    assert_eq!(config.http_server.port, 3);
    assert_eq!(config.http_server.address.as_deref(), Some("variable"));
    assert_eq!(config.node.name.as_deref(), Some("file"));
}

#[test]
fn a_list_in_a_variable_replaces_that_of_the_file_and_its_items_can_be_changed_by_name() {
    let (_folder, path) = file("yaml", "channel: {namespaces: [{name: from-file}]}\n");
    let environment = [
        ("CENTRIFUGO_CHANNEL_NAMESPACES", r#"[{"name": "one"}, {"name": "two-b.c"}]"#),
        ("CENTRIFUGO_CHANNEL_NAMESPACES_TWO_B_C_ALLOW_PUBLISH_FOR_CLIENT", "true"),
        ("STARLING_CHANNEL_NAMESPACES_ONE_CHANNEL_REGEX", "^a$"),
    ];
    let sources = Sources { file: Some(path), environment: environment.into_iter().collect(), flags: vec![] };
    let namespaces = sources.load().unwrap().config.channel.namespaces;
    assert_eq!(namespaces.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["one", "two-b.c"]);
    assert!(namespaces[1].options.allow_publish_for_client);
    assert_eq!(namespaces[0].options.channel_regex.as_deref(), Some("^a$"));
}

#[test]
fn a_variable_for_an_item_that_is_not_there_is_refused() {
    let said = from_variables(&[("STARLING_CHANNEL_NAMESPACES_CHAT_HISTORY_SIZE", "1")]).unwrap_err().to_string();
    assert_eq!(
        said,
        "STARLING_CHANNEL_NAMESPACES_CHAT_HISTORY_SIZE: `channel.namespaces` has no item that is called CHAT; \
         an item must be in the list first"
    );
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_one() {
    assert_eq!(
        from_variables(&[("STARLING_HEALTH_ENABLE", "1")]).unwrap_err().to_string(),
        "STARLING_HEALTH_ENABLE: no option has this variable. Did you mean STARLING_HEALTH_ENABLED?"
    );
    assert!(from_variables(&[("CENTRIFUGO_COLOUR", "blue")]).is_err());
    assert!(from_variables(&[("STARLING_HTTP_SERVR_PORT", "9000")]).is_err());
    // A section has no variable.
    assert!(from_variables(&[("STARLING_HEALTH", "1")]).is_err());
}

#[test]
fn variables_that_are_none_of_ours_are_left_alone() {
    let config = from_variables(&[
        ("HOME", "/root"),
        ("CENTRIFUGO_VAR_ANY", "x"),
        ("STARLING_VAR_ANY", "x"),
        ("STARLING_PORT", "tcp://10.0.0.1:8000"),
        ("STARLING_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("STARLING_PORT_8000_TCP_PROTO", "tcp"),
        ("STARLING_SERVICE_HOST", "10.0.0.1"),
        ("STARLING_SERVICE_PORT_HTTP", "8000"),
        ("CENTRIFUGO_GRPC_API_SERVICE_HOST", "10.0.0.1"),
        // The service `starling-grpc-api` makes a variable that is called like an option.
        ("STARLING_GRPC_API_PORT", "tcp://10.0.0.1:10000"),
    ]);
    assert_eq!(config.unwrap(), Config::default());
}

#[test]
fn a_wrong_value_in_a_variable_names_the_variable() {
    assert_eq!(
        from_variables(&[("CENTRIFUGO_HEALTH_ENABLED", "sometimes")]).unwrap_err().to_string(),
        "CENTRIFUGO_HEALTH_ENABLED: `health.enabled` takes true or false, not \"sometimes\""
    );
    let said = from_variables(&[("STARLING_CHANNEL_NAMESPACES", "[{]")]).unwrap_err().to_string();
    assert!(said.starts_with("STARLING_CHANNEL_NAMESPACES: `channel.namespaces` is written in JSON here"), "{said}");
    let said = from_variables(&[("STARLING_CHANNEL_NAMESPACES", r#"[{"name": "one", "presense": true}]"#)]);
    let said = said.unwrap_err().to_string();
    assert!(said.contains("Did you mean `channel.namespaces[one].presence`?"), "{said}");
}

#[test]
fn texts_of_a_map_may_refer_to_variables() {
    let take = |value: &str, variables: &[(&str, &str)]| {
        let raw = raw::Raw::Map(vec![("Authorization".into(), raw::Raw::Text(value.into()))]);
        <BTreeMap<String, String> as setting::Take>::take(&raw, &variables.iter().copied().collect()).ok()
    };
    let map = |value: &str| Some(BTreeMap::from([("Authorization".to_owned(), value.to_owned())]));
    let variables = [("CENTRIFUGO_VAR_X", "s"), ("STARLING_VAR_Y", "t"), ("OTHER", "u")];
    assert_eq!(take("a ${CENTRIFUGO_VAR_X}${STARLING_VAR_Y} z", &variables), map("a st z"));
    assert_eq!(take("${OTHER} ${", &variables), map("${OTHER} ${"));
    assert_eq!(take("${CENTRIFUGO_VAR_MISSING}", &variables), None);
}

#[test]
fn a_map_may_be_a_list_of_keys_and_values() {
    let text = r#"[{"key": "X-Case", "value": "v"}]"#;
    let raw = raw::parse(text, Format::Json).unwrap();
    let map = <BTreeMap<String, String> as setting::Take>::take(&raw, &Environment::default());
    assert_eq!(map.ok().unwrap().get("X-Case").map(String::as_str), Some("v"));
}

// === flags ===

#[test]
fn a_flag_reaches_items_by_name() {
    let (_folder, path) = file("json", r#"{"channel": {"namespaces": [{"name": "a.b"}, {"name": "a"}]}}"#);
    let flags = vec![
        flag("channel.namespaces.a.b.channel_regex", "1"),
        flag("channel.namespaces.a.channel_regex", "2"),
        flag("channel.namespaces[a.b].allow_publish_for_client", "true"),
    ];
    let problems = Sources { file: Some(path), flags, ..Sources::default() }.load().unwrap_err().to_string();
    // One letter is too short for a name, but it can be named.
    assert!(problems.ends_with("must be two or more letters, digits, dashes, underscores or dots"), "{problems}");
    assert_eq!(problems.lines().count(), 1, "{problems}");
}

#[test]
fn a_wrong_flag_is_quoted() {
    assert_eq!(
        from_flags(&[("client.ping_intervall", "1s")]).unwrap_err().to_string(),
        "--set client.ping_intervall=1s: `client.ping_intervall` is not an option. Did you mean `client.ping_interval`?"
    );
    let said = from_flags(&[("client", "1s")]).unwrap_err().to_string();
    assert_eq!(said, "--set client=1s: `client` is a section of options; set one of them");
    let said = from_flags(&[("channel.namespaces.chat.presence", "true")]).unwrap_err().to_string();
    assert!(said.contains("has no such item"), "{said}");
    for odd in [
        "",
        ".",
        "client.",
        "client..token",
        "channel.namespaces[",
        "channel.namespaces[]x",
        "pid_file.x",
        "pid_file[0]",
    ] {
        assert!(from_flags(&[(odd, "x")]).is_err(), "{odd:?}");
    }
}

// === rules ===

/// Configurations that the other server refuses, and a word of our reason.
#[test]
fn what_cannot_work_is_refused() {
    let cases = [
        (r#"{"client": {"allowed_origins": ["https://[bad"]}}"#, "`client.allowed_origins` has a pattern"),
        (r#"{"client": {"token": {"rsa_public_key": "nonsense"}}}"#, "is no RSA public key"),
        (r#"{"client": {"token": {"ecdsa_public_key": "nonsense"}}}"#, "is no elliptic-curve public key"),
        (
            r#"{"channel": {"without_namespace": {"channel_regex": "("}}}"#,
            "`channel.without_namespace.channel_regex` is no regular",
        ),
        (r#"{"client": {"token": {"hmac_secret_key": "s", "audience_regex": "("}}}"#, "is no regular expression"),
        (r#"{"client": {"token": {"audience": "a", "audience_regex": "b"}}}"#, "does not go together"),
        (r#"{"client": {"token": {"user_id_claim": "x y"}}}"#, "takes letters and underscores"),
        (r#"{"channel": {"without_namespace": {"history_size": 10}}}"#, "needs `history_ttl` too"),
        (r#"{"channel": {"without_namespace": {"history_ttl": "10s"}}}"#, "needs `history_size` too"),
        (r#"{"client": {"token": {"jwks_public_endpoint": "not a url"}}}"#, "takes an http:// or https:// address"),
        (
            r#"{"http_server": {"tls": {"enabled": true, "cert_pem": "/nowhere/cert.pem",
                "key_pem": "/nowhere/key.pem"}}}"#,
            "`http_server.tls.cert_pem` is no PEM, no base64 of PEM, and no file that can be read: /nowhere/cert.pem",
        ),
        (
            r#"{"engine": {"type": "redis", "redis": {"tls": {"enabled": true, "server_ca_pem": "/nowhere/ca.pem"}}}}"#,
            "`engine.redis.tls.server_ca_pem` is no PEM",
        ),
        (r#"{"http_server": {"tls": {"enabled": true}}}"#, "`http_server.tls.key_pem` must be set"),
        (r#"{"channel": {"namespaces": [{"name": "bad name"}]}}"#, "must be two or more letters"),
        (r#"{"channel": {"namespaces": [{}]}}"#, "`channel.namespaces[0].name` must be two or more letters"),
        (
            r#"{"channel": {"namespaces": [{"name": "same"}, {"name": "same"}]}}"#,
            "is the name of another namespace already",
        ),
        (
            r#"{"channel": {"namespaces": [{"name": "chat", "publish_proxy_enabled": true,
                "publish_proxy_name": "ghost"}]}}"#,
            "names the proxy \"ghost\", which is not in `proxies`",
        ),
        (r#"{"client": {"proxy": {"connect": {"enabled": true}}}}"#, "`client.proxy.connect.endpoint` must be set"),
        (
            r#"{"channel": {"without_namespace": {"history_size": 1, "history_ttl": "60s", "force_recovery": true,
                "force_recovery_mode": "magic"}}}"#,
            "takes \"stream\" or \"cache\", not \"magic\"",
        ),
        (
            r#"{"channel": {"without_namespace": {"force_recovery": true}}}"#,
            "`channel.without_namespace.force_recovery` needs history",
        ),
        (r#"{"channel": {"without_namespace": {"auto_cache_recover": true}}}"#, "needs `force_recovery`"),
        (
            r#"{"channel": {"without_namespace": {"history_size": 10, "history_ttl": "1500ms"}}}"#,
            "takes whole seconds, not 1s500ms",
        ),
        (r#"{"channel": {"history_meta_ttl": "1500ms"}}"#, "takes whole seconds"),
        (
            r#"{"channel": {"history_meta_ttl": "1h", "without_namespace": {"history_size": 1,
                "history_ttl": "10h"}}}"#,
            "is 10h, but must not be longer than `channel.history_meta_ttl`, which is 1h",
        ),
        (
            r#"{"channel": {"namespaces": [{"name": "chat", "subscription_type": "strange"}]}}"#,
            "takes \"stream\", \"map\"",
        ),
        (r#"{"broker": {"enabled": true, "type": "pigeon"}}"#, "`broker.type` takes \"memory\""),
        (r#"{"health": {"enabled": true, "handler_prefix": "/api/"}}"#, "is the path of `http_api` already"),
        (
            r#"{"engine": {"type": "redis", "redis": {"address": ["redis://a:1", "redis://b:1"]}}}"#,
            "takes one address for now",
        ),
        (
            r#"{"engine": {"type": "redis", "redis": {"address": "redis+sentinel://a:1"}}}"#,
            "names Sentinel or Redis Cluster",
        ),
        (r#"{"engine": {"type": "redis", "redis": {"address": "redis"}}}"#, "names no port"),
        (
            r#"{"client": {"subscribe_to_user_personal_channel": {"enabled": true,
                "personal_channel_namespace": "x"}}}"#,
            "names no namespace",
        ),
    ];
    for (text, expected) in cases {
        let said = refused(text);
        assert!(said.contains(expected), "{text}\n{said}");
    }
}

#[test]
fn addresses_of_redis_are_taken_in_every_usual_form() {
    for address in [
        "127.0.0.1:6379",
        "redis://localhost",
        "redis://127.0.0.1:1",
        "redis://user:p%40ss@host:6380/3?timeout=1s",
        "rediss://:secret@[::1]:6380/0",
        "[::1]:6379",
    ] {
        let config = json(&format!(r#"{{"engine": {{"type": "redis", "redis": {{"address": "{address}"}}}}}}"#));
        assert_eq!(config.unwrap_or_else(|problems| panic!("{problems}")).engine.redis.connection.address, [address]);
    }
}

#[test]
fn a_namespace_that_cannot_work_says_so_before_it_is_refused_as_not_supported() {
    let said = refused(r#"{"channel": {"without_namespace": {"history_size": 10}}}"#);
    assert!(
        said.lines().next().unwrap().ends_with("`channel.without_namespace.history_size` needs `history_ttl` too"),
        "{said}"
    );
}

#[test]
fn an_option_that_is_not_supported_yet_is_refused_by_name() {
    let is_refused = |text: &str, option: &str| {
        let expected = format!("configuration:1: `{option}` is a Centrifugo option that Starling does not support yet");
        let said = refused(text);
        assert!(said.lines().any(|line| line == expected), "{said}");
    };
    is_refused(r#"{"consumers": [{"name": "my_queue", "type": "kafka"}]}"#, "consumers");
    is_refused(r#"{"admin": {"enabled": true}}"#, "admin.enabled");
    is_refused(r#"{"graphite": {"enabled": true}}"#, "graphite.enabled");
    is_refused(r#"{"shared_poll": {"hmac_secret_key": "s"}}"#, "shared_poll");
    is_refused(
        r#"{"channel": {"namespaces": [{"name": "chat", "map": {"mode": "ephemeral"}}]}}"#,
        "channel.namespaces[chat].map",
    );
    is_refused(
        r#"{"engine": {"type": "redis", "redis": {"sentinel_address": ["a:1"]}}}"#,
        "engine.redis.sentinel_address",
    );
}

#[test]
fn an_option_that_is_not_supported_but_off_is_taken() {
    let config = json(
        r#"{"admin": {"enabled": false, "password": "p", "secret": "s"}, "consumers": [], "graphite": {"host": "h"},
            "engine": {"redis": {"sentinel_address": ["a:1"]}},
            "channel": {"without_namespace": {"subscription_type": "stream", "subscribe_proxy_name": "default"}}}"#,
    );
    assert!(config.is_ok(), "{}", config.unwrap_err());
}

// === certificates ===

#[test]
fn a_certificate_is_taken_as_text_base64_or_file_and_must_go_with_its_key() {
    use base64::Engine as _;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().signing_key.serialize_pem();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&key);
    let (_folder, path) = file("pem", &cert);
    let tls = |cert: &str, key: &str| {
        let tls = serde_json::json!({"http_server": {"tls": {"enabled": true, "cert_pem": cert, "key_pem": key}}});
        json(&tls.to_string()).map(|config| config.http_server.tls)
    };
    let path = path.to_str().unwrap();
    let options = tls(path, &key).unwrap();
    assert_eq!(options.cert_pem, Some(Pem::File(path.into())));
    assert_eq!(options.key_pem, Some(Pem::Inline(Secret::new(key.as_str()))));
    assert_eq!(tls(&cert, &base64).unwrap().key_pem, Some(Pem::Inline(Secret::new(key.as_str()))));
    let said = tls(path, &other).unwrap_err().to_string();
    assert!(said.contains("`http_server.tls.key_pem` is not the key of the certificate in `cert_pem`"), "{said}");
    let damaged = base64[..base64.len() / 2].to_owned();
    let said = tls(path, &damaged).unwrap_err().to_string();
    assert!(!said.contains(&damaged[..40]), "{said}");
}

// === files ===

#[test]
fn the_same_configuration_in_three_formats() {
    let texts = [
        (
            "json",
            r#"{"http_server": {"port": 9000}, "channel": {"namespaces": [{"name": "chat", "channel_regex": "^x"}]}}"#,
        ),
        ("yaml", "http_server:\n  port: 9000\nchannel:\n  namespaces:\n  - name: chat\n    channel_regex: ^x\n"),
        ("toml", "[http_server]\nport = 9000\n[[channel.namespaces]]\nname = \"chat\"\nchannel_regex = \"^x\"\n"),
    ];
    for (extension, text) in texts {
        let (_folder, path) = file(extension, text);
        let config = Sources { file: Some(path), ..Sources::default() }.load().unwrap().config;
        assert_eq!(config.http_server.port, 9000, "{extension}");
        assert_eq!(config.channel.namespaces[0].options.channel_regex.as_deref(), Some("^x"), "{extension}");
    }
}

#[test]
fn a_problem_in_a_file_has_its_line() {
    let (_folder, path) =
        file("yaml", "# ours\nhealth:\n  enabled: true\n  colour: red\nchannel:\n  namespaces:\n  - name: x y\n");
    let said = Sources { file: Some(path), ..Sources::default() }.load().unwrap_err().to_string();
    let lines: Vec<&str> = said.lines().map(|line| line.split_once("config.yaml:").unwrap().1).collect();
    assert!(lines[0].starts_with("4: `health.colour`"), "{said}");
    assert!(lines[1].starts_with("7: `channel.namespaces[x y].name`"), "{said}");
}

#[test]
fn a_file_must_be_there_readable_and_of_a_known_format() {
    let load = |path: &str| Sources { file: Some(path.into()), ..Sources::default() }.load().unwrap_err().to_string();
    assert_eq!(load("/nowhere/config.json"), "/nowhere/config.json: there is no such file");
    assert_eq!(
        load("/nowhere/config.ini"),
        "/nowhere/config.ini: a configuration file ends in .json, .yaml, .yml or .toml"
    );
    let (_folder, path) = file("json", "{\n\"a\": \n}");
    let said = load(path.to_str().unwrap());
    assert!(said.contains("config.json:3: expected value"), "{said}");
    let (_folder, path) = file("yaml", "- a\n");
    assert!(load(path.to_str().unwrap()).ends_with("a configuration is a section of options, not a list"));
}

#[test]
fn a_wrong_value_in_the_file_is_told_even_where_a_variable_overrides_it() {
    let (_folder, path) = file("json", r#"{"health": {"enabled": "sometimes"}}"#);
    let environment = [("STARLING_HEALTH_ENABLED", "true")].into_iter().collect();
    assert!(Sources { file: Some(path), environment, flags: vec![] }.load().is_err());
}

// === explain and reload ===

#[test]
fn explain_says_where_each_value_came_from_and_masks_secrets() {
    let text = "http_api:\n  key: 'very secret'\nengine:\n  redis:\n    address: redis://u:hidden@h:1/0\n";
    let (_folder, path) = file("yaml", text);
    let environment = [("STARLING_HEALTH_ENABLED", "1")].into_iter().collect();
    let sources = Sources { file: Some(path), environment, flags: vec![flag("http_server.port", "9000")] };
    let explained = sources.load().unwrap().explain();
    let find = |option: &str| explained.iter().find(|one| one.option == option).unwrap();
    assert_eq!(find("http_api.key").value, "\"***\"");
    assert!(find("http_api.key").origin.as_ref().unwrap().ends_with("config.yaml:2"));
    assert_eq!(find("engine.redis.address").value, "[\"redis://***@h:1/0\"]");
    assert_eq!(find("health.enabled").origin.as_deref(), Some("STARLING_HEALTH_ENABLED"));
    assert_eq!(find("http_server.port").value, "9000");
    assert_eq!(find("http_server.port").origin.as_deref(), Some("--set http_server.port=9000"));
    assert_eq!(find("client.ping_interval").value, "\"25s\"");
    assert_eq!(find("client.ping_interval").origin, None);
    let all = format!("{explained:?}");
    assert!(!all.contains("very secret") && !all.contains("hidden"), "{all}");
}

#[test]
fn no_secret_shows_in_debug_output() {
    let config =
        json(r#"{"http_api": {"key": "very secret"}, "client": {"token": {"hmac_secret_key": "so secret"}}}"#).unwrap();
    let text = format!("{config:?}");
    assert!(!text.contains("very secret") && !text.contains("so secret"), "{text}");
    let sources = Sources {
        environment: [("STARLING_HTTP_API_KEY", "very secret")].into_iter().collect(),
        flags: vec![Flag {
            option: "http_api.key".into(),
            value: "so secret".into(),
            written: "--set http_api.key".into(),
        }],
        file: None,
    };
    let text = format!("{sources:?} {:?}", sources.load().unwrap());
    assert!(!text.contains("very secret") && !text.contains("so secret"), "{text}");
}

#[test]
fn a_reload_takes_over_what_may_change_and_names_what_waits() {
    let (_folder, path) = file("json", r#"{"client": {"token": {"hmac_secret_key": "old"}}}"#);
    let mut loaded = Sources { file: Some(path.clone()), ..Sources::default() }.load().unwrap();
    let text = r#"{"client": {"token": {"hmac_secret_key": "new"}}, "http_server": {"port": 9000},
                   "channel": {"namespaces": [{"name": "chat"}],
                   "without_namespace": {"allow_publish_for_client": true}}}"#;
    std::fs::write(&path, text).unwrap();
    assert_eq!(loaded.reload().unwrap(), ["http_server.port"]);
    assert_eq!(loaded.config.client.token.hmac_secret_key.as_ref().unwrap().expose(), "new");
    assert_eq!(loaded.config.channel.namespaces.len(), 1);
    assert!(loaded.config.channel.without_namespace.allow_publish_for_client);
    assert_eq!(loaded.config.http_server.port, 8000);

    std::fs::write(&path, "{}").unwrap();
    assert_eq!(loaded.reload().unwrap(), Vec::<String>::new());
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn a_reload_that_is_refused_changes_nothing() {
    let (_folder, path) = file("json", r#"{"client": {"token": {"hmac_secret_key": "old"}}}"#);
    let mut loaded = Sources { file: Some(path.clone()), ..Sources::default() }.load().unwrap();
    let before = loaded.config.clone();
    std::fs::write(&path, r#"{"client": {"token": {"hmac_secret_key": "new"}}, "colour": 1}"#).unwrap();
    assert!(loaded.reload().unwrap_err().to_string().contains("`colour` is not an option"));
    assert_eq!(loaded.config, before);
}
