//! Tables of decisions. The rows were compared with the reference server where it could be asked.

use std::time::Duration;

use starling_proto::client::FilterNode;

use super::*;
use crate::{
    auth::{ChannelClaims, Failure, Overrides, Period, SubscriptionClaims, TokenRefusal, UnixSeconds},
    config::{DeltaType, Namespace as NamespaceConfig, SubscriptionType},
    error::{ClientError, Disconnect},
    filter::Filter,
    names::{ClientId, UserId},
    session::protocol::SubscribeRequest,
};

const NOW: UnixSeconds = UnixSeconds(1_000);

// === which namespace a channel has ===

#[test]
fn the_text_before_the_first_boundary_is_the_namespace() {
    let namespaces = with_namespaces([("chat", |_| ())]);
    for (channel, namespace, rest) in [
        ("chat:room", Some("chat"), "room"),
        ("chat:a:b", Some("chat"), "a:b"),
        ("chat:", Some("chat"), ""),
        ("$chat:room", Some("chat"), "room"),
        ("room", None, "room"),
        ("chat", None, "chat"),
        ("$room", None, "$room"),
        (":room", None, "room"),
        ("$:room", None, "room"),
    ] {
        let rules = namespaces.resolve(channel).unwrap_or_else(|| panic!("{channel} resolves"));
        assert_eq!((rules.namespace(), rules.rest), (namespace, rest), "{channel}");
    }
    for channel in ["nowhere:room", "$nowhere:x", "Chat:room", "$$chat:room", "nowhere:"] {
        assert!(namespaces.resolve(channel).is_none(), "{channel}");
    }
}

#[test]
fn boundaries_and_prefix_may_be_other_texts() {
    let mut channel = Channel {
        namespace_boundary: "::".into(),
        private_prefix: "@@".into(),
        user_boundary: "##".into(),
        user_separator: ";;".into(),
        namespaces: vec![NamespaceConfig { name: "chat".into(), options: ChannelOptions::default() }],
        ..Channel::default()
    };
    channel.without_namespace.allow_user_limited_channels = true;
    let namespaces = compile(&channel);
    let rules = |name| namespaces.resolve(name).expect("resolves");
    assert_eq!(rules("chat::x").namespace(), Some("chat"));
    assert_eq!(rules("chat:x").namespace(), None);
    assert!(rules("@@x").is_private());
    assert!(!rules("$x").is_private());
    assert!(rules("a##41;;42").lists("42"));
    assert!(!rules("a##41,42").lists("42"));
    assert!(!rules("a#42").is_user_limited());
}

#[test]
fn an_empty_mark_is_the_default_one() {
    let empty = || String::new();
    let channel = Channel {
        namespace_boundary: empty(),
        private_prefix: empty(),
        user_boundary: empty(),
        user_separator: empty(),
        ..Channel::default()
    };
    let namespaces = compile(&channel);
    assert!(namespaces.resolve("nowhere:x").is_none());
    assert!(!namespaces.resolve("x").expect("resolves").is_private());
    assert!(namespaces.resolve("$x").expect("resolves").is_private());
}

#[test]
fn namespaces_do_not_inherit() {
    let mut channel = channel_with([("bare", (|_| ()) as Edit)]);
    channel.without_namespace.presence = true;
    channel.without_namespace.allow_subscribe_for_client = true;
    let namespaces = compile(&channel);
    assert!(namespaces.resolve("x").expect("resolves").presence());
    assert!(!namespaces.resolve("bare:x").expect("resolves").presence());
    assert_eq!(subscribe(&namespaces, "42", "bare:x").err(), denied());
}

#[test]
fn history_needs_size_and_ttl_and_takes_the_global_meta_ttl() {
    let namespaces = with_namespaces([
        ("half", |options| options.history_size = Some(10)),
        ("whole", with_history),
        ("own", |options| {
            with_history(options);
            options.history_meta_ttl = Some(Duration::from_secs(90));
        }),
    ]);
    let history = |name| namespaces.resolve(name).expect("resolves").history();
    assert_eq!(history("half:x"), None);
    assert_eq!(history("whole:x").map(|kept| kept.meta_ttl), Some(Duration::from_secs(720 * 3600)));
    let own = HistoryOptions { size: 10, ttl: Duration::from_secs(60), meta_ttl: Duration::from_secs(90) };
    assert_eq!(history("own:x"), Some(own));
}

#[test]
fn configurations_that_cannot_be_compiled_name_the_option() {
    let problem = |channel: &Channel| Namespaces::new(channel, &Client::default()).expect_err("refused").to_string();
    let bad_regex: Edit = |options| options.channel_regex = Some("(".into());
    assert!(problem(&channel_with([("chat", bad_regex)])).starts_with("channel.namespaces[chat].channel_regex: "));
    let mut without = Channel::default();
    bad_regex(&mut without.without_namespace);
    assert!(problem(&without).starts_with("channel.without_namespace.channel_regex: "));
    let twice = channel_with([("same", |_| ()), ("same", |_| ())]);
    assert_eq!(problem(&twice), "channel.namespaces: there are two namespaces named \"same\"");
}

// === names ===

#[test]
fn names_are_ascii_or_match_the_regex_after_the_boundary() {
    let mut channel = channel_with([("room", (|options| options.channel_regex = Some("^[0-9é]+$".into())) as Edit)]);
    open(&mut channel.without_namespace);
    open(&mut channel.namespaces[0].options);
    let namespaces = compile(&channel);
    for (name, fails) in [
        ("room:12", None),
        ("room:é", None),
        ("room:12a", Some(ClientError::BadRequest)),
        ("room:", Some(ClientError::BadRequest)),
        ("room:12\n", Some(ClientError::BadRequest)),
        ("room:1:2", Some(ClientError::BadRequest)),
        ("café", Some(ClientError::BadRequest)),
        ("a b\n\0", None),
    ] {
        let failure = fails.map(Failure::Error);
        assert_eq!(subscribe(&namespaces, "42", name).err(), failure, "subscribe {name:?}");
        assert_eq!(publish(&namespaces, "42", name).err(), failure, "publish {name:?}");
        assert_eq!(wire(namespaces.may_presence(who("42"), name)).err(), failure, "presence {name:?}");
        assert_eq!(wire(namespaces.may_history(who("42"), name)).err(), failure, "history {name:?}");
    }
}

#[test]
fn a_valid_token_does_not_help_an_invalid_name() {
    let namespaces = with_namespaces([]);
    let claims = claims("café", "42");
    let request = request("café");
    let decided = namespaces.may_subscribe(who("42"), &request, TokenVerdict::Valid(&claims), NOW);
    assert_eq!(wire(decided).err(), Some(Failure::Error(ClientError::BadRequest)));
}

#[test]
fn the_request_itself_is_checked_in_the_order_of_the_reference() {
    let namespaces = with_namespaces([]);
    let long = "c".repeat(256);
    let bad = Failure::Disconnect(Disconnect::BAD_REQUEST);
    type Change = fn(&mut SubscribeRequest);
    let rows: [(&str, Change, Option<Failure>); 9] = [
        ("x", |_| (), None),
        (&long[..255], |_| (), None),
        (&long, |_| (), Some(Failure::Error(ClientError::BadRequest))),
        ("x", |request| request.delta = "xdelta".into(), Some(bad.clone())),
        (&long, |request| request.delta = "xdelta".into(), Some(bad.clone())),
        ("x", |request| request.delta = "fossil".into(), None),
        ("", |request| request.kind = 4, Some(bad)),
        (&long, |request| request.kind = 4, Some(Failure::Error(ClientError::NotAvailable))),
        ("nowhere:x", |_| (), None),
    ];
    for (row, (name, change, failure)) in rows.into_iter().enumerate() {
        let mut request = request(name);
        change(&mut request);
        assert_eq!(wire(namespaces.check_request(&request)).err(), failure, "row {row}");
    }
}

// === subscribe ===

#[test]
fn the_first_rule_that_does_not_hold_answers_a_subscribe() {
    let namespaces = with_namespaces([
        ("open", open),
        ("client", |options| options.allow_subscribe_for_client = true),
        ("anonymous", |options| options.allow_subscribe_for_anonymous = true),
        ("closed", |_| ()),
        ("limited", |options| {
            open(options);
            options.allow_user_limited_channels = true;
        }),
        ("map", |options| {
            open(options);
            options.subscription_type = SubscriptionType::Map;
        }),
    ]);
    let expired = TokenRefusal::Expired(Period::Over { since: 1 });
    let invalid = TokenRefusal::Invalid("signature".into());
    let no_token = || TokenVerdict::Absent;
    let error = |error| Some(Failure::Error(error));
    let close = || Some(Failure::Disconnect(Disconnect::INVALID_TOKEN));
    use ClientError::{Expired, PermissionDenied, TokenExpired, UnknownChannel};

    let of = |channel: &str, user: &str| claims(channel, user);
    let (mine, of_other, of_nobody) = (of("closed:x", "42"), of("closed:x", "43"), of("closed:x", ""));
    let elsewhere = of("closed:y", "42");
    let private = of("$closed:x", "42");
    let limited = of("limited:room#43", "42");
    let nowhere = of("nowhere:x", "42");
    let past = SubscriptionClaims { expire_at: Some(UnixSeconds(1_000)), ..mine.clone() };
    let soon = SubscriptionClaims { expire_at: Some(UnixSeconds(1_001)), ..mine.clone() };
    let for_client = |id: &str| SubscriptionClaims { client: Some(id.into()), ..mine.clone() };
    let (for_me, for_another) = (for_client("00000000-0000-0000-0000-000000000007"), for_client("someone"));

    let rows = [
        // namespace, then rights
        ("42", "nowhere:x", no_token(), error(UnknownChannel)),
        ("42", "nowhere:x", TokenVerdict::Valid(&nowhere), error(UnknownChannel)),
        ("42", "nowhere:x", TokenVerdict::Refused(&invalid), error(UnknownChannel)),
        ("42", "open:x", no_token(), None),
        ("", "open:x", no_token(), None),
        ("42", "client:x", no_token(), None),
        ("", "client:x", no_token(), error(PermissionDenied)),
        ("42", "anonymous:x", no_token(), error(PermissionDenied)),
        ("", "anonymous:x", no_token(), error(PermissionDenied)),
        ("42", "closed:x", no_token(), error(PermissionDenied)),
        ("42", "map:x", no_token(), error(PermissionDenied)),
        // private prefix
        ("42", "$open:x", no_token(), error(PermissionDenied)),
        ("42", "$closed:x", TokenVerdict::Valid(&private), None),
        // tokens
        ("42", "closed:x", TokenVerdict::Valid(&mine), None),
        ("42", "open:x", TokenVerdict::Refused(&expired), error(TokenExpired)),
        ("42", "open:x", TokenVerdict::Refused(&invalid), error(PermissionDenied)),
        ("42", "closed:x", TokenVerdict::Valid(&elsewhere), close()),
        ("42", "closed:x", TokenVerdict::Valid(&of_other), close()),
        ("42", "closed:x", TokenVerdict::Valid(&of_nobody), close()),
        ("", "closed:x", TokenVerdict::Valid(&of_nobody), None),
        ("42", "closed:x", TokenVerdict::Valid(&for_me), None),
        ("42", "closed:x", TokenVerdict::Valid(&for_another), close()),
        ("42", "closed:x", TokenVerdict::Valid(&past), error(Expired)),
        ("42", "closed:x", TokenVerdict::Valid(&soon), None),
        // user-limited
        ("42", "limited:room#42", no_token(), None),
        ("42", "limited:room#41,42", no_token(), None),
        ("42", "limited:room#43", no_token(), error(PermissionDenied)),
        ("42", "limited:room#4", no_token(), error(PermissionDenied)),
        ("42", "limited:room#42#43", no_token(), error(PermissionDenied)),
        ("42", "limited:room#43#42", no_token(), None),
        ("42", "limited:room#43", TokenVerdict::Valid(&limited), None),
        ("42", "limited:room#42", TokenVerdict::Refused(&invalid), error(PermissionDenied)),
        ("42", "limited:room", no_token(), None),
        ("42", "open:room#43", no_token(), None),
    ];
    for (user, channel, token, failure) in rows {
        let request = request(channel);
        let id = UserId::from(user);
        let decided = namespaces.may_subscribe(subject(&id), &request, token, NOW);
        assert_eq!(wire(decided).err(), failure, "{user:?} subscribes to {channel} with {token:?}");
    }
}

#[test]
fn an_empty_list_entry_lets_nobody_in() {
    let namespaces = with_namespaces([("limited", |options| options.allow_user_limited_channels = true)]);
    for channel in ["limited:room#", "limited:room#,", "limited:room#a,,b", "limited:#"] {
        assert_eq!(subscribe(&namespaces, "", channel).err(), denied(), "{channel}");
    }
}

#[test]
fn insecure_gives_every_permission_but_no_feature_and_no_private_channel() {
    let channel = channel_with([
        ("closed", (|_| ()) as Edit),
        ("limited", |options| options.allow_user_limited_channels = true),
        ("kept", |options| {
            options.presence = true;
            with_history(options);
        }),
    ]);
    let namespaces = Namespaces::new(&channel, &Client { insecure: true, ..Client::default() }).expect("compiles");
    for (channel, failure) in [
        ("closed:x", None),
        ("limited:room#43", None),
        ("$closed:x", denied()),
        ("café", Some(Failure::Error(ClientError::BadRequest))),
        ("nowhere:x", Some(Failure::Error(ClientError::UnknownChannel))),
    ] {
        assert_eq!(subscribe(&namespaces, "", channel).err(), failure, "{channel}");
    }
    assert!(publish(&namespaces, "", "closed:x").is_ok());
    let off = Some(Failure::Error(ClientError::NotAvailable));
    assert_eq!(wire(namespaces.may_presence(who(""), "closed:x")).err(), off);
    assert_eq!(wire(namespaces.may_history(who(""), "closed:x")).err(), off);
    assert!(namespaces.may_presence(who(""), "kept:x").is_ok());
    assert!(namespaces.may_history(who(""), "kept:x").is_ok());
}

#[test]
fn a_subscribe_proxy_is_asked_before_the_allow_options_and_not_for_user_limited_channels() {
    let namespaces = with_namespaces([
        ("proxied", |options| {
            open(options);
            options.allow_user_limited_channels = true;
            options.subscribe_proxy_enabled = true;
            options.subscribe_proxy_name = "rights".into();
        }),
        ("streamed", |options| options.subscribe_stream_proxy_enabled = true),
    ]);
    assert_eq!(subscribe(&namespaces, "42", "proxied:x"), Ok(Permit::AskBackend(Question::Subscribe("rights"))));
    assert!(matches!(subscribe(&namespaces, "42", "proxied:x#42"), Ok(Permit::Granted(_))));
    assert_eq!(subscribe(&namespaces, "42", "proxied:x#43").err(), denied());
    let streamed = subscribe(&namespaces, "42", "streamed:x");
    assert_eq!(streamed, Ok(Permit::AskBackend(Question::SubscribeStream("default"))));
}

#[test]
fn a_filter_needs_its_option_and_every_node_well_formed() {
    let namespaces = with_namespaces([
        ("plain", open),
        ("filtered", |options| {
            open(options);
            options.allow_tags_filter = true;
        }),
        ("closed", |_| ()),
    ]);
    let leaf = |key: &str, cmp: &str, val: &str, vals: &[&str]| FilterNode {
        key: key.into(),
        cmp: cmp.into(),
        val: val.into(),
        vals: vals.iter().map(|val| (*val).into()).collect(),
        ..FilterNode::default()
    };
    let node =
        |op: &str, nodes: &[FilterNode]| FilterNode { op: op.into(), nodes: nodes.to_vec(), ..Default::default() };
    let good = leaf("lang", "eq", "en", &[]);
    let rows = [
        (good.clone(), true),
        (leaf("lang", "in", "", &["en"]), true),
        (leaf("lang", "ex", "", &[]), true),
        (leaf("", "ex", "", &[]), true),
        (leaf("lang", "gte", "5", &[]), true),
        (node("and", &[good.clone(), good.clone()]), true),
        (node("not", &[node("or", std::slice::from_ref(&good))]), true),
        (leaf("lang", "", "", &[]), false),
        (leaf("", "eq", "en", &[]), false),
        (leaf("lang", "like", "en", &[]), false),
        (leaf("lang", "eq", "", &[]), false),
        (leaf("lang", "eq", "en", &["en"]), false),
        (leaf("lang", "in", "", &[]), false),
        (leaf("lang", "in", "en", &["en"]), false),
        (leaf("lang", "ex", "en", &[]), false),
        (node("and", &[]), false),
        (node("or", &[]), false),
        (node("not", &[]), false),
        (node("not", &[good.clone(), good.clone()]), false),
        (node("xor", std::slice::from_ref(&good)), false),
        (node("and", &[good.clone(), leaf("a", "", "", &[])]), false),
    ];
    let filtered = |channel: &str, filter: &FilterNode| {
        let request = SubscribeRequest { tags_filter: Some(Box::new(filter.clone())), ..request(channel) };
        wire(namespaces.may_subscribe(who("42"), &request, TokenVerdict::Absent, NOW)).map(|_| ())
    };
    let bad = Err(Failure::Error(ClientError::BadRequest));
    for (filter, fine) in rows {
        assert_eq!(filtered("filtered:x", &filter), if fine { Ok(()) } else { bad.clone() }, "{filter:?}");
        assert_eq!(filtered("plain:x", &filter), bad, "{filter:?}");
    }
    assert_eq!(filtered("closed:x", &good).err(), denied(), "rights come before the filter");
}

// === what is granted ===

#[test]
fn a_subscription_has_what_is_forced_and_what_it_asks_for_and_may_have() {
    let namespaces = with_namespaces([
        ("plain", with_history),
        ("pos", |options| options.force_positioning = true),
        ("rec", |options| options.force_recovery = true),
        ("askpos", |options| options.allow_positioning = true),
        ("askrec", |options| options.allow_recovery = true),
        ("hist", |options| options.allow_history_for_client = true),
        ("histsub", |options| options.allow_history_for_subscriber = true),
    ]);
    // (namespace, asks for positioned, for recoverable) -> (positioned, recoverable), for a user and for anonymous
    for (namespace, positioned, recoverable, of_user, of_anonymous) in [
        ("plain", true, true, (false, false), (false, false)),
        ("pos", false, false, (true, false), (true, false)),
        ("rec", false, false, (true, true), (true, true)),
        ("askpos", false, false, (false, false), (false, false)),
        ("askpos", true, true, (true, false), (true, false)),
        ("askrec", true, false, (false, false), (false, false)),
        ("askrec", true, true, (true, true), (true, true)),
        ("hist", true, false, (true, false), (false, false)),
        ("hist", true, true, (true, true), (false, false)),
        ("histsub", true, true, (true, true), (false, false)),
    ] {
        for (user, expected) in [("42", of_user), ("", of_anonymous)] {
            let channel = format!("{namespace}:x");
            let request = SubscribeRequest { positioned, recoverable, ..request(&channel) };
            let claims = claims(&channel, user);
            let granted = granted(&namespaces, user, &request, TokenVerdict::Valid(&claims));
            assert_eq!((granted.positioned, granted.recoverable), expected, "{user:?} in {namespace}");
        }
    }
}

#[test]
fn join_and_leave_are_pushed_to_all_or_to_those_who_ask_and_may_see_presence() {
    let namespaces = with_namespaces([
        ("forced", |options| (options.join_leave, options.force_push_join_leave) = (true, true)),
        ("may", |options| (options.join_leave, options.allow_presence_for_client) = (true, true)),
        ("maysub", |options| (options.join_leave, options.allow_presence_for_subscriber) = (true, true)),
        ("maynot", |options| options.join_leave = true),
        ("off", |options| options.allow_presence_for_client = true),
    ]);
    for (namespace, asked, emitted, pushed) in [
        ("forced", false, true, true),
        ("may", false, true, false),
        ("may", true, true, true),
        ("maysub", true, true, true),
        ("maynot", true, true, false),
        ("off", true, false, false),
    ] {
        let channel = format!("{namespace}:x");
        let claims = claims(&channel, "42");
        let request = SubscribeRequest { join_leave: asked, ..request(&channel) };
        let granted = granted(&namespaces, "42", &request, TokenVerdict::Valid(&claims));
        assert_eq!((granted.join_leave, granted.push_join_leave), (emitted, pushed), "{namespace}, asked {asked}");
    }
}

#[test]
fn overrides_of_a_token_replace_the_options_and_what_is_asked_for_comes_on_top() {
    let namespaces = with_namespaces([("all", |options| {
        options.presence = true;
        options.join_leave = true;
        options.force_push_join_leave = true;
        options.force_positioning = true;
        options.force_recovery = true;
        options.allow_recovery = true;
    })]);
    let none = Overrides {
        presence: Some(false),
        join_leave: Some(false),
        force_push_join_leave: Some(false),
        force_recovery: Some(false),
        force_positioning: Some(false),
    };
    let with = |overrides, request: &SubscribeRequest| {
        let mut claims = claims("all:x", "42");
        claims.subscription.overrides = overrides;
        let granted = granted(&namespaces, "42", request, TokenVerdict::Valid(&claims));
        let Granted { presence, join_leave, push_join_leave, positioned, recoverable, .. } = granted;
        [presence, join_leave, push_join_leave, positioned, recoverable]
    };
    let plain = request("all:x");
    assert_eq!(with(Overrides::default(), &plain), [true; 5]);
    assert_eq!(with(none, &plain), [false; 5]);
    let recovery_alone = Overrides { force_recovery: Some(true), ..none };
    assert_eq!(with(recovery_alone, &plain), [false, false, false, true, true]);
    let asking = SubscribeRequest { recoverable: true, ..plain };
    assert_eq!(with(none, &asking), [false, false, false, true, true]);
}

#[test]
fn a_token_gives_info_data_and_expiry() {
    let namespaces = with_namespaces([]);
    let claims = SubscriptionClaims {
        subscription: ChannelClaims { info: "{\"a\":1}".into(), data: "2".into(), overrides: Overrides::default() },
        expire_at: Some(UnixSeconds(2_000)),
        ..claims("x", "42")
    };
    let granted = granted(&namespaces, "42", &request("x"), TokenVerdict::Valid(&claims));
    assert_eq!((&granted.info[..], &granted.data[..]), (&b"{\"a\":1}"[..], &b"2"[..]));
    assert_eq!((granted.expire_at, granted.client_side_refresh), (Some(UnixSeconds(2_000)), true));
}

#[test]
fn delta_is_granted_where_the_namespace_has_the_kind() {
    let namespaces = with_namespaces([
        ("delta", |options| {
            open(options);
            options.allowed_delta_types = vec![DeltaType::Fossil];
        }),
        ("plain", open),
    ]);
    for (channel, asked, given) in
        [("delta:x", "fossil", Some(DeltaType::Fossil)), ("delta:x", "", None), ("plain:x", "fossil", None)]
    {
        let request = SubscribeRequest { delta: asked.into(), ..request(channel) };
        assert_eq!(granted(&namespaces, "42", &request, TokenVerdict::Absent).delta, given, "{channel} {asked:?}");
    }
}

#[test]
fn a_subscription_with_a_filter_has_no_delta() {
    let namespaces = with_namespaces([("both", |options: &mut ChannelOptions| {
        open(options);
        options.allowed_delta_types = vec![DeltaType::Fossil];
        options.allow_tags_filter = true;
    })]);
    let filter = FilterNode { key: "lang".into(), cmp: "eq".into(), val: "en".into(), ..FilterNode::default() };
    let request =
        SubscribeRequest { delta: "fossil".into(), tags_filter: Some(Box::new(filter.clone())), ..request("both:x") };
    let granted = granted(&namespaces, "42", &request, TokenVerdict::Absent);
    assert_eq!(granted.delta, None);
    assert_eq!(granted.filter.as_deref(), Filter::compile(&filter).ok().as_ref());
}

#[test]
fn what_connect_asks_for_is_given_by_the_same_rules_and_otherwise_left_out() {
    let namespaces = with_namespaces([
        ("open", open),
        ("closed", |_| ()),
        ("limited", |options| options.allow_user_limited_channels = true),
        ("proxied", |options| {
            open(options);
            options.subscribe_proxy_enabled = true;
        }),
    ]);
    let asked = |user: &str, channel: &str| {
        let id = UserId::from(user);
        let decided = namespaces.may_ask_at_connect(subject(&id), channel);
        wire(decided.map(|rules| rules.is_some()))
    };
    for (user, channel, given) in [
        ("42", "open:x", true),
        ("", "open:x", true),
        ("42", "closed:x", false),
        ("42", "$open:x", false),
        ("42", "open:é", false),
        ("42", "", false),
        ("42", "limited:r#42", true),
        ("42", "limited:r#43", false),
        ("42", "proxied:x", false),
    ] {
        assert_eq!(asked(user, channel), Ok(given), "{user:?} {channel:?}");
    }
    assert_eq!(asked("42", "nowhere:x"), Err(Failure::Disconnect(Disconnect::BAD_REQUEST)));
}

// === publish, presence, history ===

#[test]
fn rights_to_publish_and_to_read_take_a_base_right_and_for_anonymous_another() {
    // which of for_client, for_subscriber, for_anonymous are on; who may
    let rows = [
        ([false, false, false], [false, false, false, false]),
        ([true, false, false], [true, true, false, false]),
        ([false, true, false], [false, true, false, false]),
        ([false, false, true], [false, false, false, false]),
        ([true, false, true], [true, true, true, true]),
        ([false, true, true], [false, true, false, true]),
        ([true, true, true], [true, true, true, true]),
    ];
    for ([client, subscriber, anonymous], may) in rows {
        let mut channel = Channel::default();
        let options = &mut channel.without_namespace;
        options.presence = true;
        with_history(options);
        options.allow_publish_for_client = client;
        options.allow_publish_for_subscriber = subscriber;
        options.allow_publish_for_anonymous = anonymous;
        options.allow_presence_for_client = client;
        options.allow_presence_for_subscriber = subscriber;
        options.allow_presence_for_anonymous = anonymous;
        options.allow_history_for_client = client;
        options.allow_history_for_subscriber = subscriber;
        options.allow_history_for_anonymous = anonymous;
        let namespaces = compile(&channel);
        for (may, (user, subscribed)) in may.into_iter().zip([("42", false), ("42", true), ("", false), ("", true)]) {
            let id = UserId::from(user);
            let who = Subject { subscribed, ..subject(&id) };
            let failure = if may { None } else { denied() };
            let row = format!("{client} {subscriber} {anonymous}: {user:?} subscribed {subscribed}");
            assert_eq!(wire(namespaces.may_publish(who, "x", b"1")).err(), failure, "publish {row}");
            assert_eq!(wire(namespaces.may_presence(who, "x")).err(), failure, "presence {row}");
            assert_eq!(wire(namespaces.may_history(who, "x")).err(), failure, "history {row}");
        }
    }
}

#[test]
fn a_feature_that_is_off_is_said_before_a_right_that_is_missing() {
    let namespaces = with_namespaces([]);
    let off = Some(Failure::Error(ClientError::NotAvailable));
    assert_eq!(wire(namespaces.may_presence(who("42"), "x")).err(), off);
    assert_eq!(wire(namespaces.may_history(who("42"), "x")).err(), off);
}

#[test]
fn unknown_namespaces_and_empty_channels_end_every_command() {
    let namespaces = with_namespaces([]);
    for (channel, failure) in
        [("nowhere:x", Failure::Error(ClientError::UnknownChannel)), ("", Failure::Disconnect(Disconnect::BAD_REQUEST))]
    {
        assert_eq!(publish(&namespaces, "42", channel).err().as_ref(), Some(&failure));
        assert_eq!(wire(namespaces.may_presence(who("42"), channel)).err().as_ref(), Some(&failure));
        assert_eq!(wire(namespaces.may_history(who("42"), channel)).err().as_ref(), Some(&failure));
    }
}

#[test]
fn the_private_prefix_does_not_matter_for_publishing() {
    let namespaces = with_namespaces([("open", open)]);
    assert!(matches!(publish(&namespaces, "42", "$open:x"), Ok(Permit::Granted(_))));
}

#[test]
fn a_publish_proxy_is_asked_after_the_data_and_before_the_rights() {
    let namespaces = with_namespaces([
        ("proxied", |options| options.publish_proxy_enabled = true),
        ("up", |options| {
            options.subscribe_stream_proxy_enabled = true;
            options.subscribe_stream_proxy_bidirectional = true;
        }),
    ]);
    let asked = |channel, data: &'static [u8]| {
        wire(namespaces.may_publish(who("42"), channel, data)).map(|permit| match permit {
            Permit::AskBackend(question) => Some(question),
            Permit::Granted(_) => None,
        })
    };
    assert_eq!(asked("proxied:x", b"1"), Ok(Some(Question::Publish("default"))));
    assert_eq!(asked("proxied:x", b""), Err(Failure::Error(ClientError::BadRequest)));
    assert_eq!(asked("up:x", b"1"), Ok(Some(Question::PublishToStream("default"))));
}

#[test]
fn the_format_decides_which_payloads_a_channel_takes() {
    let mut channel = channel_with([
        ("any", (|_| ()) as Edit),
        ("json", |options| options.publication_data_format = Some(DataFormat::Json)),
        ("object", |options| options.publication_data_format = Some(DataFormat::JsonObject)),
        ("binary", |options| options.publication_data_format = Some(DataFormat::Binary)),
    ]);
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    // taken by: any, json, object, binary
    let rows: [(&[u8], [bool; 4]); 12] = [
        (b"", [false, false, false, true]),
        (b"\xff\x00", [true, false, false, true]),
        (b"{oops", [true, false, false, true]),
        (b"12", [true, true, false, true]),
        (b"null", [true, true, false, true]),
        (b"{}", [true, true, true, true]),
        (b" \n{\"a\":[1,2.5e3]} ", [true, true, true, true]),
        (b"{} {}", [true, false, false, true]),
        (b"[{}]", [true, true, false, true]),
        (b"\"\xff\"", [true, false, false, true]),
        (b"\"\n\"", [true, false, false, true]),
        (&deep, [true, true, false, true]),
    ];
    let namespaces = compile(&channel);
    for (data, taken) in rows {
        for (namespace, taken) in ["any:x", "json:x", "object:x", "binary:x"].into_iter().zip(taken) {
            let check = namespaces.resolve(namespace).expect("resolves").check_data(data);
            let seen = String::from_utf8_lossy(&data[..data.len().min(40)]).into_owned();
            assert_eq!(check.is_ok(), taken, "{namespace} {seen:?}");
        }
    }
    channel.publication_data_format = Some(DataFormat::Binary);
    let namespaces = compile(&channel);
    let takes = |channel, data: &[u8]| namespaces.resolve(channel).expect("resolves").check_data(data).is_ok();
    assert!(takes("any:x", b""), "the global format is the fallback");
    assert!(!takes("json:x", b""), "the namespace's own format wins");
}

// === refusals explain themselves ===

#[test]
fn a_refusal_names_rule_value_and_option() {
    let mut channel = channel_with([
        ("chat", (|_| ()) as Edit),
        ("sub", |options| (options.presence, options.allow_presence_for_subscriber) = (true, true)),
        ("anon", |options| options.allow_publish_for_client = true),
        ("room", |options| options.channel_regex = Some("^[0-9]+$".into())),
        ("limited", |options| options.allow_user_limited_channels = true),
    ]);
    channel.max_length = 10;
    let namespaces = compile(&channel);
    let text = |decided: Result<(), Refusal<'_>>| decided.expect_err("refused").to_string();
    let publish = |user, channel| text(namespaces.may_publish(who(user), channel, b"1").map(|_| ()));
    let development = "client.insecure in development";

    assert_eq!(
        publish("42", "chat:r"),
        format!(
            "refused by the rule \"clients may publish\": channel \"chat:r\", user \"42\"; see option \
             channel.namespaces[chat].allow_publish_for_client, or use the server API, or {development}"
        )
    );
    assert_eq!(
        publish("", "x"),
        format!(
            "refused by the rule \"clients may publish\": channel \"x\", the anonymous user; see option \
             channel.without_namespace.allow_publish_for_client together with allow_publish_for_anonymous, or use the \
             server API, or {development}"
        )
    );
    assert!(publish("", "anon:x").contains("see option channel.namespaces[anon].allow_publish_for_anonymous, or"));
    assert_eq!(
        publish("42", "nowhere:x"),
        "refused by the rule \"the namespace exists\": channel \"nowhere:x\", \"nowhere\"; see option \
         channel.namespaces"
    );
    assert_eq!(
        publish("42", "room:a"),
        "refused by the rule \"the name matches channel_regex\": channel \"room:a\", \"a\"; see option \
         channel.namespaces[room].channel_regex"
    );
    assert_eq!(
        text(namespaces.may_presence(who("42"), "sub:x").map(|_| ())),
        format!(
            "refused by the rule \"clients may read presence\": channel \"sub:x\", user \"42\", not subscribed; \
             see option channel.namespaces[sub].allow_presence_for_client, or use {development}"
        )
    );
    let long = request("12345678901");
    assert_eq!(
        text(namespaces.check_request(&long)),
        "refused by the rule \"the channel is not too long\": channel \"12345678901\", 11 bytes, at most 10; \
         see option channel.max_length"
    );
    let subscribe = |channel: &str, token: TokenVerdict<'_>| {
        text(namespaces.may_subscribe(who("42"), &request(channel), token, NOW).map(|_| ()))
    };
    assert_eq!(
        subscribe("limited:a#43", TokenVerdict::Absent),
        format!(
            "refused by the rule \"a user-limited channel lists the user\": channel \"limited:a#43\", user \"42\"; use \
             a subscription token, or {development}"
        )
    );
    let expired = TokenRefusal::Expired(Period::Over { since: 60 });
    assert_eq!(
        subscribe("chat:x", TokenVerdict::Refused(&expired)),
        "refused by the rule \"the subscription token is accepted\": channel \"chat:x\", expired 60 s ago (claim exp)"
    );
}

#[test]
fn options_named_by_refusals_exist_in_the_configuration() {
    // The field names are the option names: the debug form of the structures lists them.
    let known = format!("{:?} {:?}", Channel::default(), ChannelOptions::default());
    let namespaces = with_namespaces([]);
    let rules = namespaces.resolve("x").expect("resolves");
    for rule in [
        Rule::NameIsShort,
        Rule::NamespaceExists,
        Rule::NameMatchesRegex,
        Rule::NameIsAscii,
        Rule::KindIsOfNamespace,
        Rule::PrivateChannelHasToken,
        Rule::ClientMaySubscribe,
        Rule::FilterIsAllowed,
        Rule::ClientMayPublish,
        Rule::DataIsPresent,
        Rule::PresenceIsOn,
        Rule::ClientMayReadPresence,
        Rule::HistoryIsOn,
        Rule::ClientMayReadHistory,
    ] {
        let path = rules.refusal(rule).option().expect("has an option").to_string();
        let option = path.rsplit('.').next().expect("a path has a last part");
        assert!(known.contains(&format!(" {option}: ")), "{path}");
    }
}

// === making configurations and requests ===

type Edit = fn(&mut ChannelOptions);

fn open(options: &mut ChannelOptions) {
    options.allow_subscribe_for_client = true;
    options.allow_subscribe_for_anonymous = true;
    options.allow_publish_for_client = true;
    options.presence = true;
    options.allow_presence_for_client = true;
    with_history(options);
    options.allow_history_for_client = true;
}

fn with_history(options: &mut ChannelOptions) {
    options.history_size = Some(10);
    options.history_ttl = Some(Duration::from_secs(60));
}

fn channel_with<const N: usize>(namespaces: [(&str, Edit); N]) -> Channel {
    let namespaces = namespaces.map(|(name, edit)| {
        let mut options = ChannelOptions::default();
        edit(&mut options);
        NamespaceConfig { name: name.into(), options }
    });
    Channel { namespaces: namespaces.into(), ..Channel::default() }
}

fn with_namespaces<const N: usize>(namespaces: [(&str, Edit); N]) -> Namespaces {
    compile(&channel_with(namespaces))
}

fn compile(channel: &Channel) -> Namespaces {
    Namespaces::new(channel, &Client::default()).expect("compiles")
}

fn subject(user: &UserId) -> Subject<'_> {
    Subject { user, client: ClientId(uuid::Uuid::from_u128(7)), subscribed: false }
}

/// One of two users that live as long as the tests.
fn who(user: &str) -> Subject<'static> {
    static USERS: std::sync::LazyLock<[UserId; 2]> =
        std::sync::LazyLock::new(|| [UserId::from("42"), UserId::from("")]);
    subject(USERS.iter().find(|known| known.as_str() == user).expect("a known user"))
}

fn request(channel: &str) -> SubscribeRequest {
    SubscribeRequest { channel: channel.into(), ..SubscribeRequest::default() }
}

fn claims(channel: &str, user: &str) -> SubscriptionClaims {
    SubscriptionClaims {
        channel: channel.into(),
        user: user.into(),
        client: None,
        subscription: ChannelClaims::default(),
        expire_at: None,
    }
}

fn wire<T>(decided: Result<T, Refusal<'_>>) -> Result<T, Failure> {
    decided.map_err(Failure::from)
}

fn denied() -> Option<Failure> {
    Some(Failure::Error(ClientError::PermissionDenied))
}

fn granted(namespaces: &Namespaces, user: &str, request: &SubscribeRequest, token: TokenVerdict<'_>) -> Granted {
    match namespaces.may_subscribe(who(user), request, token, NOW) {
        Ok(Permit::Granted(granted)) => granted,
        other => panic!("not granted: {other:?}"),
    }
}

/// Subscribes without a token.
fn subscribe<'a>(namespaces: &'a Namespaces, user: &str, channel: &str) -> Result<Permit<'a, Granted>, Failure> {
    let request = request(channel);
    match wire(namespaces.may_subscribe(who(user), &request, TokenVerdict::Absent, NOW))? {
        Permit::Granted(granted) => Ok(Permit::Granted(granted)),
        Permit::AskBackend(Question::Subscribe(proxy)) => Ok(Permit::AskBackend(Question::Subscribe(known(proxy)))),
        Permit::AskBackend(Question::SubscribeStream(proxy)) => {
            Ok(Permit::AskBackend(Question::SubscribeStream(known(proxy))))
        }
        other => panic!("not a question about a subscribe: {other:?}"),
    }
}

/// Frees the name of a proxy from the request that the answer borrows too.
fn known(proxy: &str) -> &'static str {
    ["default", "rights"].into_iter().find(|known| *known == proxy).expect("a known proxy")
}

fn publish<'a>(namespaces: &'a Namespaces, user: &str, channel: &'a str) -> Result<Permit<'a, ()>, Failure> {
    match wire(namespaces.may_publish(who(user), channel, b"1"))? {
        Permit::Granted(_) => Ok(Permit::Granted(())),
        Permit::AskBackend(question) => Ok(Permit::AskBackend(question)),
    }
}
