//! The commands about configuration and tokens, run as a user runs them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `starling` in a folder with exactly these variables.
fn starling(folder: &Path, line: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling"))
        .current_dir(folder)
        .args(line)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the binary was built for this test")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("output is UTF-8")
}

fn folder_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

#[test]
fn check_says_ok_or_everything_that_is_wrong() {
    let folder = folder_with("good.toml", "[health]\nenabled = true\n");
    let output = starling(folder.path(), &["config", "check", "--config", "good.toml"], &[]);
    assert_eq!((output.status.code(), out(&output).as_str(), err(&output).as_str()), (Some(0), "ok\n", ""));

    std::fs::write(folder.path().join("bad.toml"), "[health]\nenabled = \"sometimes\"\ncolour = \"red\"\n").unwrap();
    let output =
        starling(folder.path(), &["config", "check", "-c", "bad.toml"], &[("STARLING_HTTP_SERVER_PROT", "9000")]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""));
    let said = err(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "starling: the configuration has 3 problems");
    assert!(lines[1].starts_with("  bad.toml:3: `health.colour` is not an option."), "{said}");
    assert_eq!(lines[2], "  bad.toml:2: `health.enabled` takes true or false, not \"sometimes\"");
    assert!(lines[3].ends_with("Did you mean STARLING_HTTP_SERVER_PORT?"), "{said}");
}

#[test]
fn serve_refuses_to_start_with_code_one_and_a_wrong_command_line_has_code_two() {
    let folder = folder_with("bad.json", r#"{"engine": {"type": "carrier_pigeon"}}"#);
    for line in [&["serve", "--config", "bad.json"][..], &["--config", "bad.json"], &["serve", "-c", "missing.json"]] {
        let output = starling(folder.path(), line, &[]);
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        assert!(err(&output).starts_with("starling: the configuration has a problem\n"), "{line:?}: {}", err(&output));
    }
    for line in [
        &["nonsense"][..],
        &["serve", "--nonsense"],
        &["serve", "--set", "pid_file"],
        &["token", "create", "--ttl", "soon"],
    ] {
        assert_eq!(starling(folder.path(), line, &[]).status.code(), Some(2), "{line:?}");
    }
}

#[test]
fn explain_shows_what_is_set_and_where_and_no_secret() {
    let folder = folder_with("config.yaml", "http_api:\n  key: hunter2\nclient:\n  ping_interval: 10s\n");
    let line = ["config", "explain", "-c", "config.yaml", "--set", "client.token.hmac_secret_key=swordfish"];
    let output = starling(folder.path(), &line, &[("CENTRIFUGO_HEALTH_ENABLED", "true")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let said = out(&output);
    let said: Vec<String> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "client.token.hmac_secret_key = \"***\" # --set client.token.hmac_secret_key",
        "client.ping_interval = \"10s\" # config.yaml:4",
        "http_api.key = \"***\" # config.yaml:2",
        "health.enabled = true # CENTRIFUGO_HEALTH_ENABLED",
    ];
    assert_eq!(said, expected);

    let all = out(&starling(folder.path(), &["config", "explain", "--all"], &[]));
    assert!(all.lines().count() > 700, "{all}");
    assert!(all.lines().all(|line| line.ends_with("# default")), "{all}");

    let output = starling(folder.path(), &["config", "explain", "client.pong_timeout"], &[]);
    let expected = "# How long after a ping its pong may arrive; absent means that no pong is asked for.\n\
                    # Takes a duration such as 25s or 1m30s.\n\
                    # Variable: STARLING_CLIENT_PONG_TIMEOUT\n\
                    client.pong_timeout = \"8s\"  # default\n\n";
    assert_eq!(out(&output), expected);
    let output = starling(folder.path(), &["config", "explain", "client.pong_timeuot"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("Did you mean `client.pong_timeout`?"), "{}", err(&output));
}

#[test]
fn init_writes_a_file_that_works_for_its_owner_only_and_never_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut secrets = Vec::new();
    for name in ["config.toml", "config.yaml", "config.json"] {
        let output = starling(folder.path(), &["config", "init", name], &[]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let path = folder.path().join(name);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        secrets.extend(text.split('"').filter(|part| part.len() == 64).map(str::to_owned));
        assert_eq!(starling(folder.path(), &["config", "check", "-c", name], &[]).status.code(), Some(0), "{name}");

        let again = starling(folder.path(), &["config", "init", name], &[]);
        assert_eq!(again.status.code(), Some(1));
        assert!(err(&again).contains("exists already"), "{}", err(&again));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    secrets.sort();
    secrets.dedup();
    assert_eq!(secrets.len(), 6, "every secret is another");
    assert_eq!(starling(folder.path(), &["config", "init", "config.ini"], &[]).status.code(), Some(1));
    assert_eq!(starling(folder.path(), &["config", "init", "nowhere/config.toml"], &[]).status.code(), Some(1));
}

#[test]
fn a_created_token_is_accepted_by_its_configuration_and_by_no_other() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ours.toml", "theirs.toml"] {
        assert_eq!(starling(folder.path(), &["config", "init", name], &[]).status.code(), Some(0));
    }
    for more in [&["--user", "42"][..], &[], &["--user", "42", "--channel", "news", "--ttl", "never"]] {
        let line = [&["token", "create", "-c", "ours.toml"], more].concat();
        let created = starling(folder.path(), &line, &[]);
        assert_eq!(created.status.code(), Some(0), "{}", err(&created));
        let token = out(&created).trim().to_owned();
        assert_eq!(out(&created), format!("{token}\n"));
        let inspect = |config: &str| starling(folder.path(), &["token", "inspect", &token, "-c", config], &[]);
        let ours = inspect("ours.toml");
        assert_eq!(ours.status.code(), Some(0), "{}", out(&ours));
        let theirs = inspect("theirs.toml");
        assert_eq!(theirs.status.code(), Some(1));
        assert!(out(&theirs).contains("signature"), "{}", out(&theirs));
    }
    let output = starling(folder.path(), &["token", "create", "--user", "42"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("client.token.hmac_secret_key"), "{}", err(&output));
}

#[test]
fn help_and_version_succeed_and_go_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    for line in [&["--help"][..], &["-h"], &["help"], &["serve", "--help"], &["config", "--help"], &["token", "-h"]] {
        let output = starling(folder.path(), line, &[]);
        assert_eq!(output.status.code(), Some(0), "{line:?}");
        assert!(out(&output).contains("Usage: starling"), "{line:?}");
    }
    for line in [["version"], ["--version"]] {
        let output = starling(folder.path(), &line, &[]);
        assert_eq!(out(&output), format!("starling {}\n", env!("CARGO_PKG_VERSION")));
    }
}
