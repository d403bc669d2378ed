//! `starling dev`: a server to try things with. The memory engine, on this machine only, with keys made for this run, open
//! channels, and a demo page in place of the root page.
//!
//! | file | what it is |
//! |---|---|
//! | this file | the options of dev mode, its keys, and what it prints |
//! | `demo.html`, `demo.css` | the page |
//! | `demo.js` | what the page does |
//! | `connection.js` | the client protocol, as the page speaks it |

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use bytes::Bytes;
use serde::Serialize;

/// Keys of one run.
#[derive(Clone)]
pub struct Keys {
    /// Signs tokens (HS256).
    pub secret: String,
    /// Opens the server API.
    pub api: String,
}

impl Keys {
    /// The given ones; those that are missing are random.
    pub fn new(secret: Option<String>, api: Option<String>) -> Self {
        Self { secret: secret.unwrap_or_else(random_key), api: api.unwrap_or_else(random_key) }
    }
}

/// 18 bytes from the system's generator, as text that needs no quotes anywhere.
fn random_key() -> String {
    let mut bytes = [0_u8; 18];
    rand::fill(&mut bytes);
    base64::engine::general_purpose::STANDARD.encode(bytes).replace(['+', '/'], "x")
}

/// User that the printed token is for.
pub const USER: &str = "dev";

/// Pages of this machine, on every port: the demo page, and whatever a front-end developer has running.
const ORIGINS: [&str; 8] = [
    "http://localhost",
    "http://localhost:*",
    "http://127.0.0.1",
    "http://127.0.0.1:*",
    r"http://\[::1\]",
    r"http://\[::1\]:*",
    "https://localhost",
    "https://localhost:*",
];

/// The options that dev mode sets, with their values as texts. What the user sets comes after them and wins.
pub fn options(address: IpAddr, port: u16, grpc_port: u16, keys: &Keys) -> Vec<(&'static str, String)> {
    let on = || "true".to_owned();
    vec![
        ("http_server.address", address.to_string()),
        ("http_server.port", port.to_string()),
        ("grpc_api.enabled", on()),
        ("grpc_api.address", address.to_string()),
        ("grpc_api.port", grpc_port.to_string()),
        ("grpc_api.key", keys.api.clone()),
        ("http_api.key", keys.api.clone()),
        ("client.token.hmac_secret_key", keys.secret.clone()),
        ("client.allowed_origins", ORIGINS.join(" ")),
        ("client.allow_anonymous_connect_without_token", on()),
        ("channel.without_namespace.allow_subscribe_for_client", on()),
        ("channel.without_namespace.allow_subscribe_for_anonymous", on()),
        ("channel.without_namespace.allow_publish_for_client", on()),
        ("channel.without_namespace.allow_publish_for_anonymous", on()),
        ("health.enabled", on()),
        ("prometheus.enabled", on()),
    ]
}

/// What the page and the printed text tell about a run.
#[derive(Serialize)]
pub struct Facts {
    /// Version of the server.
    pub version: &'static str,
    /// How this program was called.
    pub program: String,
    /// Token for [`USER`], as long as the run.
    pub token: String,
    /// Key of the server API.
    pub api_key: String,
    /// Where gRPC listens.
    pub grpc: String,
}

impl Facts {
    /// The demo page, whole: nothing else is loaded.
    ///
    /// Panics never: all facts are texts.
    pub fn page(&self) -> Bytes {
        // Inside a script element only `<` could end it.
        let facts = serde_json::to_string(self).expect("texts can be written as JSON").replace('<', "\\u003c");
        let script = [include_str!("connection.js"), include_str!("demo.js")].join("\n");
        let page = include_str!("demo.html")
            .replace("/*{style}*/", include_str!("demo.css"))
            .replace("/*{script}*/", &script)
            .replace("/*{facts}*/", &facts);
        Bytes::from(page)
    }

    /// What is printed when the server runs: where everything is, and commands to copy.
    pub fn greeting(&self, http: SocketAddr) -> String {
        let Self { version, program, token, api_key, grpc } = self;
        format!(
            r#"{version} in dev mode: embedded memory engine, this machine only, keys for this run only.

  Demo page  http://{http}/    open it: publish on the left, see it arrive on the right
  Clients    ws://{http}/connection/websocket
  HTTP API   http://{http}/api
  gRPC API   {grpc}    (centrifugal.centrifugo.api.CentrifugoApi)
  Health     http://{http}/health and /health/ready
  Metrics    http://{http}/metrics
  API key    {api_key}    (HTTP: X-API-Key, gRPC: authorization: apikey ...)
  Token      for user "{USER}", as long as this run:
{token}

Watch a channel in another terminal:

  {program} subscribe demo --url ws://{http}/connection/websocket

Publish to it over HTTP, gRPC, and with this program:

  curl http://{http}/api/publish -H 'X-API-Key: {api_key}' -d '{{"channel":"demo","data":{{"text":"Hello from curl"}}}}'

  grpcurl -plaintext -import-path proto/proto -proto api.proto -H 'authorization: apikey {api_key}' \
    -d '{{"channel":"demo","data":"{data}"}}' {grpc} centrifugal.centrifugo.api.CentrifugoApi/Publish

  {program} publish demo '{{"text":"Hello from a terminal"}}' --url http://{http}/api --key {api_key}
  {program} publish demo '{{"text":"Hello over gRPC"}}' --grpc {grpc} --key {api_key}

Every client may connect without a token, and subscribe and publish to every channel without a namespace (a name without
":"). Pages of this machine may connect on any port. In earnest: {program} config init config.toml, then
{program} serve --config config.toml. Ctrl-C ends this run.

"#,
            data = base64::engine::general_purpose::STANDARD.encode(r#"{"text":"Hello from grpcurl"}"#),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            version: "Starling 0.0.0",
            program: "starling".into(),
            token: "</script><script>alert(1)</script>".into(),
            api_key: "key".into(),
            grpc: "127.0.0.1:10000".into(),
        }
    }

    #[test]
    fn the_page_is_whole_and_its_facts_cannot_end_its_script() {
        let page = String::from_utf8(facts().page().to_vec()).unwrap();
        assert!(!page.contains("/*{"), "a part is missing");
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("class Connection"));
        assert!(page.contains(r#""api_key":"key""#));
        for loaded in ["src=", "@import", "url("] {
            assert!(!page.contains(loaded), "the page must not load anything: {loaded}");
        }
    }

    #[test]
    fn keys_that_are_not_given_are_random() {
        let given = Keys::new(Some("mine".into()), None);
        assert_eq!(given.secret, "mine");
        assert_eq!(given.api.len(), 24);
        assert_ne!(given.api, Keys::new(None, None).api);
    }
}
