//! API commands taken from outside queues.

use std::time::Duration;

use super::{RedisOptions, TlsOptions};
use crate::config::options::{options, words};
use crate::config::values::Secret;

options! {
    /// One entry of `consumers`.
    pub struct Consumer {
        /// Name, for logs and metrics.
        name: String,
        /// Turns it on.
        enabled: bool,
        /// What kind of queue; the section of the same name has the rest.
        kind as "type": Option<ConsumerKind>,
        /// A PostgreSQL outbox.
        postgresql: PostgresqlConsumer,
        /// Kafka.
        kafka: KafkaConsumer,
        /// NATS JetStream.
        nats_jetstream: NatsJetstreamConsumer,
        /// Redis streams.
        redis_stream: RedisStreamConsumer,
        /// Google Pub/Sub.
        google_pub_sub: GooglePubSubConsumer,
        /// Amazon SQS.
        aws_sqs: AwsSqsConsumer,
        /// Azure Service Bus.
        azure_service_bus: AzureServiceBusConsumer,
    }

    /// `postgresql` of a consumer.
    pub struct PostgresqlConsumer {
        /// Where PostgreSQL is.
        dsn: Option<Secret>,
        /// Table of the outbox.
        outbox_table_name: Option<String>,
        /// Number of partitions in the table.
        num_partitions: u32 = 1,
        /// How many rows are taken at once.
        partition_select_limit: u32 = 100,
        /// How often a partition is looked at.
        partition_poll_interval: Duration = Duration::from_millis(300),
        /// Channel to LISTEN to; absent means polling only.
        partition_notification_channel: Option<String>,
        /// Where to LISTEN, if not at `dsn`.
        partition_notification_dsn: Option<Secret>,
        /// TLS towards PostgreSQL.
        tls: TlsOptions,
        /// Skips a partition that another node holds instead of waiting.
        use_try_lock: bool,
    }

    /// `kafka` of a consumer.
    pub struct KafkaConsumer {
        /// Addresses of brokers.
        brokers: Vec<String>,
        /// Topics.
        topics: Vec<String>,
        /// Consumer group.
        consumer_group: Option<String>,
        /// Most records of one poll.
        max_poll_records: u32 = 100,
        /// Most bytes of one fetch; absent means what the client library takes.
        fetch_max_bytes: Option<u32>,
        /// Longest wait of one fetch.
        fetch_max_wait: Duration = Duration::from_millis(500),
        /// Reads records of transactions that are not committed.
        fetch_read_uncommitted: bool,
        /// Most records waiting per partition; -1 pauses with each poll.
        partition_queue_max_size: i64 = 1000,
        /// Longest time to establish a connection.
        dial_timeout: Duration = Duration::from_secs(3),
        /// TLS towards Kafka.
        tls: TlsOptions,
        /// How to log in.
        sasl_mechanism: Option<SaslMechanism>,
        /// User name.
        sasl_user: Option<String>,
        /// Password.
        sasl_password: Option<Secret>,
        /// Role to assume at AWS.
        assume_role_arn: Option<String>,
        /// Static membership of the group.
        instance_id: Option<String>,
        /// Header that names the method.
        method_header: String = "centrifugo-method".into(),
        /// Takes the body as publication data.
        publication_data_mode: HeaderPublicationMode,
    }

    /// `nats_jetstream` of a consumer.
    pub struct NatsJetstreamConsumer {
        /// Address of NATS.
        url: String = "nats://127.0.0.1:4222".into(),
        /// File with credentials.
        credentials_file: Option<std::path::PathBuf>,
        /// User name.
        username: Option<String>,
        /// Password.
        password: Option<Secret>,
        /// Token.
        token: Option<Secret>,
        /// Stream.
        stream_name: Option<String>,
        /// Uses a consumer that somebody else made.
        use_existing_consumer: bool,
        /// Subjects.
        subjects: Vec<String>,
        /// Name of the durable consumer.
        durable_consumer_name: Option<String>,
        /// Where to begin.
        deliver_policy: DeliverPolicy = DeliverPolicy::New,
        /// Most messages waiting for acknowledgement.
        max_ack_pending: u32 = 100,
        /// Header that names the method.
        method_header: String = "centrifugo-method".into(),
        /// Takes the body as publication data.
        publication_data_mode: HeaderPublicationMode,
        /// TLS towards NATS.
        tls: TlsOptions,
    }

    /// `redis_stream` of a consumer.
    pub struct RedisStreamConsumer {
        /// Where Redis is. Its prefix is not used.
        connection as "": RedisOptions,
        /// Streams.
        streams: Vec<String>,
        /// Consumer group.
        consumer_group: Option<String>,
        /// After how long an entry of a silent consumer is taken over.
        visibility_timeout: Duration = Duration::from_secs(30),
        /// How many entries are worked on at once.
        num_workers: u32 = 1,
        /// Field that holds the payload.
        payload_value: String = "payload".into(),
        /// Field that names the method.
        method_value: String = "method".into(),
        /// Takes the payload as publication data.
        publication_data_mode: ValuePublicationMode,
    }

    /// `google_pub_sub` of a consumer.
    pub struct GooglePubSubConsumer {
        /// Project.
        project_id: Option<String>,
        /// Subscriptions.
        subscriptions: Vec<String>,
        /// Most messages being worked on.
        max_outstanding_messages: u32 = 100,
        /// Most bytes being worked on.
        max_outstanding_bytes: u64 = 1_000_000,
        /// How to log in.
        auth_mechanism: Option<GoogleAuth>,
        /// File with credentials.
        credentials_file: Option<std::path::PathBuf>,
        /// Attribute that names the method.
        method_attribute: String = "centrifugo-method".into(),
        /// Takes the body as publication data.
        publication_data_mode: AttributePublicationMode,
    }

    /// `aws_sqs` of a consumer.
    pub struct AwsSqsConsumer {
        /// Addresses of queues.
        queues: Vec<String>,
        /// Messages are wrapped by SNS.
        sns_envelope: bool,
        /// Region.
        region: Option<String>,
        /// Most messages of one call.
        max_number_of_messages: u32 = 10,
        /// Longest wait of one call.
        wait_time_time: Duration = Duration::from_secs(20),
        /// How long a message stays hidden from others.
        visibility_timeout: Duration = Duration::from_secs(30),
        /// How many messages are worked on at once.
        max_concurrency: u32 = 1,
        /// Profile of the credentials.
        credentials_profile: Option<String>,
        /// Role to assume.
        assume_role_arn: Option<String>,
        /// Attribute that names the method.
        method_attribute: String = "centrifugo-method".into(),
        /// Address of a stand-in for AWS.
        localstack_endpoint: Option<String>,
        /// Takes the body as publication data.
        publication_data_mode: AttributePublicationMode,
    }

    /// `azure_service_bus` of a consumer.
    pub struct AzureServiceBusConsumer {
        /// Connection string.
        connection_string: Option<Secret>,
        /// Logs in by identity instead of connection string.
        use_azure_identity: bool,
        /// Host of the namespace.
        fully_qualified_namespace: Option<String>,
        /// Tenant.
        tenant_id: Option<String>,
        /// Client.
        client_id: Option<String>,
        /// Secret of the client.
        client_secret: Option<Secret>,
        /// Queues.
        queues: Vec<String>,
        /// Queues have sessions.
        use_sessions: bool,
        /// How many messages are worked on at once.
        max_concurrent_calls: u32 = 1,
        /// Most messages of one call.
        max_receive_messages: u32 = 1,
        /// Property that names the method.
        method_property: String = "centrifugo-method".into(),
        /// Takes the body as publication data.
        publication_data_mode: PropertyPublicationMode,
    }

    /// `publication_data_mode` where messages have headers.
    pub struct HeaderPublicationMode {
        /// Turns it on.
        enabled: bool,
        /// Header with the channels, separated by commas.
        channels_header: String = "centrifugo-channels".into(),
        /// Header with the idempotency key.
        idempotency_key_header: String = "centrifugo-idempotency-key".into(),
        /// Header that asks for a difference.
        delta_header: String = "centrifugo-delta".into(),
        /// Header with the version.
        version_header: String = "centrifugo-version".into(),
        /// Header with the epoch of the version.
        version_epoch_header: String = "centrifugo-version-epoch".into(),
        /// Prefix of headers that are tags.
        tags_header_prefix: String = "centrifugo-tag-".into(),
    }

    /// `publication_data_mode` where messages have fields.
    pub struct ValuePublicationMode {
        /// Turns it on.
        enabled: bool,
        /// Field with the channels, separated by commas.
        channels_value: String = "centrifugo-channels".into(),
        /// Field with the idempotency key.
        idempotency_key_value: String = "centrifugo-idempotency-key".into(),
        /// Field that asks for a difference.
        delta_value: String = "centrifugo-delta".into(),
        /// Field with the version.
        version_value: String = "centrifugo-version".into(),
        /// Field with the epoch of the version.
        version_epoch_value: String = "centrifugo-version-epoch".into(),
        /// Prefix of fields that are tags.
        tags_value_prefix: String = "centrifugo-tag-".into(),
    }

    /// `publication_data_mode` where messages have attributes.
    pub struct AttributePublicationMode {
        /// Turns it on.
        enabled: bool,
        /// Attribute with the channels, separated by commas.
        channels_attribute: String = "centrifugo-channels".into(),
        /// Attribute with the idempotency key.
        idempotency_key_attribute: String = "centrifugo-idempotency-key".into(),
        /// Attribute that asks for a difference.
        delta_attribute: String = "centrifugo-delta".into(),
        /// Attribute with the version.
        version_attribute: String = "centrifugo-version".into(),
        /// Attribute with the epoch of the version.
        version_epoch_attribute: String = "centrifugo-version-epoch".into(),
        /// Prefix of attributes that are tags.
        tags_attribute_prefix: String = "centrifugo-tag-".into(),
    }

    /// `publication_data_mode` where messages have properties.
    pub struct PropertyPublicationMode {
        /// Turns it on.
        enabled: bool,
        /// Property with the channels, separated by commas.
        channels_property: String = "centrifugo-channels".into(),
        /// Property with the idempotency key.
        idempotency_key_property: String = "centrifugo-idempotency-key".into(),
        /// Property that asks for a difference.
        delta_property: String = "centrifugo-delta".into(),
        /// Property with the version.
        version_property: String = "centrifugo-version".into(),
        /// Property with the epoch of the version.
        version_epoch_property: String = "centrifugo-version-epoch".into(),
        /// Prefix of properties that are tags.
        tags_property_prefix: String = "centrifugo-tag-".into(),
    }
}

words! {
    /// A kind of queue.
    pub enum ConsumerKind {
        /// A PostgreSQL outbox.
        Postgresql = "postgresql",
        /// Kafka.
        Kafka = "kafka",
        /// NATS JetStream.
        NatsJetstream = "nats_jetstream",
        /// Redis streams.
        RedisStream = "redis_stream",
        /// Google Pub/Sub.
        GooglePubSub = "google_pub_sub",
        /// Amazon SQS.
        AwsSqs = "aws_sqs",
        /// Azure Service Bus.
        AzureServiceBus = "azure_service_bus",
    }

    /// How to log in at Kafka.
    pub enum SaslMechanism {
        /// User and password.
        Plain = "plain",
        /// SCRAM with SHA-256.
        ScramSha256 = "scram-sha-256",
        /// SCRAM with SHA-512.
        ScramSha512 = "scram-sha-512",
        /// AWS credentials.
        AwsMskIam = "aws-msk-iam",
    }

    /// Where a consumer begins.
    pub enum DeliverPolicy {
        /// With what comes from now on.
        New = "new" | "",
        /// With everything that is there.
        All = "all",
    }

    /// How to log in at Google.
    pub enum GoogleAuth {
        /// By the environment.
        Default = "default",
        /// By the file of a service account.
        ServiceAccount = "service_account",
    }
}
