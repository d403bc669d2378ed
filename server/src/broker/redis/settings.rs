//! Which Redis servers to use and how to reach them, checked before anything connects.

use std::{fmt, time::Duration};

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

use super::tls::Tls;
use crate::config::RedisOptions;

/// What the broker and the control plane need to know of their Redis. Made once, at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The servers. Several mean client-side sharding; their order is part of the format, so it must be the same on every
    /// node. Never empty.
    pub servers: Vec<Server>,
    /// First part of every key and channel name.
    pub prefix: String,
    /// Longest time to establish a TCP connection.
    pub connect_timeout: Duration,
    /// Longest time until a command is answered, and until a new connection has introduced itself.
    pub io_timeout: Duration,
    /// How long a PUB/SUB connection may hear nothing before it is probed, and how long a probe may take to come back
    /// before the connection is made anew. Looked at every two seconds.
    pub quiet_limit: Duration,
}

/// One Redis server.
#[derive(Clone)]
pub struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Tls>,
    pub(super) identity: RedisConnectionInfo,
    pub(super) client_name: Option<String>,
}

/// What an address need not say.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Number of the database. PUB/SUB does not know databases; keys do.
    pub db: u32,
    /// User name, when the password belongs to one.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Name that each connection gives itself, for `CLIENT LIST`. Not used for subscribing with RESP2.
    pub client_name: Option<String>,
    /// Speaks RESP2, for servers and proxies that do not know RESP3.
    pub force_resp2: bool,
    /// TLS for every server. Without it, an address with `rediss://` is checked by the root certificates of the system.
    pub tls: Option<Tls>,
}

/// Why a setting cannot be used. The text is for the operator and holds no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub(super) String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Settings for these addresses with the default time limits (1 s and 4 s).
    ///
    /// An address is `host:port`, or `redis://[[user]:password@]host[:port][/db]`, or the same with `rediss://` for TLS.
    /// What it does not say is taken from `access`.
    ///
    /// # Errors
    ///
    /// No address, one that cannot be read, or a prefix with a brace, which would take over the hash tags of a cluster.
    pub fn new(addresses: &[impl AsRef<str>], prefix: &str, access: &Access) -> Result<Self, SettingsError> {
        if prefix.contains(['{', '}']) {
            return Err(SettingsError(format!("redis.prefix {prefix:?} must not contain braces")));
        }
        if addresses.is_empty() {
            return Err(SettingsError("redis.address is empty".into()));
        }
        Ok(Self {
            servers: addresses
                .iter()
                .map(|address| Server::parse(address.as_ref(), access))
                .collect::<Result<_, _>>()?,
            prefix: prefix.to_owned(),
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(4),
            quiet_limit: Duration::from_secs(10),
        })
    }
}

impl TryFrom<&RedisOptions> for Settings {
    type Error = SettingsError;

    /// Settings as the options say. Reads certificate files.
    fn try_from(options: &RedisOptions) -> Result<Self, SettingsError> {
        let unsupported = [
            ("cluster_address", !options.cluster_address.is_empty()),
            ("sentinel_address", !options.sentinel_address.is_empty()),
            ("replica_client.enabled", options.replica_client.enabled),
        ];
        if let Some((option, _)) = unsupported.into_iter().find(|(_, set)| *set) {
            return Err(SettingsError(format!("redis.{option} is not supported yet")));
        }
        let access = Access {
            db: options.db,
            user: options.user.clone(),
            password: options.password.as_ref().map(|password| password.expose().to_owned()),
            client_name: options.client_name.clone(),
            force_resp2: options.force_resp2,
            tls: options.tls.enabled.then(|| Tls::try_from(&options.tls)).transpose()?,
        };
        Ok(Self {
            connect_timeout: options.connect_timeout,
            io_timeout: options.io_timeout,
            ..Self::new(&options.address, &options.prefix, &access)?
        })
    }
}

impl Server {
    fn parse(address: &str, access: &Access) -> Result<Self, SettingsError> {
        // The address may hold a password: errors name its scheme at most.
        let url = match address.split_once("://") {
            None => format!("redis://{address}"),
            Some(("redis" | "rediss", rest)) if !rest.contains(['?', '#']) => address.to_owned(),
            Some(("redis" | "rediss", _)) => {
                return Err(SettingsError(
                    "options inside a redis.address are not supported: set them beside it".into(),
                ));
            }
            Some((scheme, _)) => {
                return Err(SettingsError(format!("redis.address with {scheme}:// is not supported yet")));
            }
        };
        let info =
            url.as_str().into_connection_info().map_err(|error| SettingsError(format!("redis.address: {error}")))?;
        let (host, port, tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, access.tls.clone()),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, Some(Tls::or_default(&access.tls)?)),
            other => return Err(SettingsError(format!("redis.address {other} is not supported"))),
        };
        Ok(Self {
            host,
            port,
            tls,
            identity: identity(info.redis_settings(), access),
            client_name: access.client_name.clone(),
        })
    }

    /// Whether publications arrive as pushes beside answers, as RESP3 allows.
    pub(super) fn speaks_resp3(&self) -> bool {
        self.identity.protocol() == ProtocolVersion::RESP3
    }
}

/// What the address says about database, user and password goes before `access`.
fn identity(of_address: &RedisConnectionInfo, access: &Access) -> RedisConnectionInfo {
    let protocol = if access.force_resp2 { ProtocolVersion::RESP2 } else { ProtocolVersion::RESP3 };
    let db = if of_address.db() == 0 { i64::from(access.db) } else { of_address.db() };
    let mut identity = RedisConnectionInfo::default().set_protocol(protocol).set_db(db).set_skip_set_lib_name();
    if let Some(user) = of_address.username().or(access.user.as_deref()) {
        identity = identity.set_username(user);
    }
    if let Some(password) = of_address.password().or(access.password.as_deref()) {
        identity = identity.set_password(password);
    }
    identity
}

/// Host and port, as health and log show them.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Without what identifies us to the server.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.to_string())
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsOptions;

    fn server(address: &str, access: &Access) -> Result<Server, SettingsError> {
        Settings::new(&[address], "p", access).map(|mut settings| settings.servers.remove(0))
    }

    #[test]
    fn addresses_are_read_in_every_supported_form() {
        let forms = [
            ("127.0.0.1:6379", "127.0.0.1:6379"),
            ("localhost", "localhost:6379"),
            ("redis://redis.example:7000", "redis.example:7000"),
            ("redis://:secret@h:1/3", "h:1"),
            ("rediss://h", "h:6379"),
            ("redis://[::1]:7", "[::1]:7"),
        ];
        for (address, shown) in forms {
            assert_eq!(server(address, &Access::default()).unwrap().to_string(), shown);
        }
        assert!(server("rediss://h", &Access::default()).unwrap().tls.is_some());
        assert!(server("redis://h", &Access::default()).unwrap().tls.is_none());
    }

    #[test]
    fn an_address_goes_before_the_options_beside_it() {
        let access = Access { db: 1, user: Some("u".into()), password: Some("p".into()), ..Access::default() };
        let of_options = server("h:1", &access).unwrap().identity;
        assert_eq!((of_options.db(), of_options.username(), of_options.password()), (1, Some("u"), Some("p")));
        let of_address = server("redis://me:s%40@h:1/2", &access).unwrap().identity;
        assert_eq!((of_address.db(), of_address.username(), of_address.password()), (2, Some("me"), Some("s@")));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_showing_a_password() {
        for address in
            ["redis+sentinel://:secret@h", "redis://:secret@h?x=1", "redis://:secret@h:port", "unix:///secret"]
        {
            let error = server(address, &Access::default()).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(Settings::new(&[] as &[&str], "p", &Access::default()).is_err());
        assert!(Settings::new(&["h"], "{p}", &Access::default()).is_err());
        let shown = format!("{:?}", server("redis://:secret@h", &Access::default()).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn options_become_settings() {
        let settings = Settings::try_from(&RedisOptions::default()).unwrap();
        assert_eq!(settings.servers.len(), 1);
        assert_eq!(settings.servers[0].to_string(), "127.0.0.1:6379");
        assert_eq!((settings.connect_timeout.as_secs(), settings.io_timeout.as_secs()), (1, 4));
        assert_eq!(settings.prefix, "centrifugo");
        let options = RedisOptions { sentinel_address: vec!["h".into()], ..RedisOptions::default() };
        assert!(Settings::try_from(&options).unwrap_err().to_string().contains("sentinel_address"));
        let tls = TlsOptions { enabled: true, insecure_skip_verify: true, ..TlsOptions::default() };
        let options = RedisOptions { tls, force_resp2: true, ..RedisOptions::default() };
        let settings = Settings::try_from(&options).unwrap();
        assert!(settings.servers[0].tls.is_some());
        assert!(!settings.servers[0].speaks_resp3());
    }
}
