//! What operators look at: metrics, health, traces.

use std::time::Duration;

use crate::config::options::options;

options! {
    /// `prometheus`: the Prometheus endpoint.
    pub struct Prometheus {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/metrics".into(),
        /// Counts HTTP requests by endpoint.
        instrument_http_handlers: bool,
        /// Keeps a histogram of recovered publications.
        recovered_publications_histogram: bool,
        /// Exposes native histograms.
        native_histograms: bool,
    }

    /// `health`: the health endpoint.
    pub struct Health {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/health".into(),
    }

    /// `debug`: endpoints for profiling.
    pub struct Debug {
        /// Turns it on.
        enabled: bool,
        /// Path that it is served under.
        handler_prefix: String = "/debug/pprof".into(),
    }

    /// `opentelemetry`: tracing.
    pub struct Opentelemetry {
        /// Turns it on.
        enabled: bool,
        /// Traces the server API.
        api: bool,
        /// Traces the consumers.
        consuming: bool,
        /// Uses the credentials of the Google Cloud environment.
        google_cloud_adc_auth: bool,
    }

    /// `graphite`: metrics pushed to Graphite.
    pub struct Graphite {
        /// Turns it on.
        enabled: bool,
        /// Host of Graphite.
        host: String = "localhost".into(),
        /// Port of Graphite.
        port: u16 = 2003,
        /// Prefix of every name.
        prefix: String = "centrifugo".into(),
        /// How often metrics are pushed.
        interval: Duration = Duration::from_secs(10),
        /// Uses the form with tags.
        tags: bool,
    }
}
