//! The configuration as people meet it: round trips, mistakes with their places, precedence.

use std::ffi::OsString;

use proptest::prelude::*;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect()
}

fn problems(text: &str) -> Vec<String> {
    match Layers::new().text("c.toml", text).load() {
        Ok(_) => vec![],
        Err(error) => error.problems().iter().map(Problem::to_string).collect(),
    }
}

#[test]
fn the_commented_file_is_the_defaults() {
    let text = MeshConfig::commented_toml();
    assert_eq!(MeshConfig::from_toml(&text).unwrap(), MeshConfig::default());
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(MeshConfig::from_toml(&uncommented).unwrap(), MeshConfig::default());
    let set = uncommented.lines().filter(|l| l.contains(" = ") && !l.starts_with('#')).count();
    let options = KEYS.iter().filter(|k| (k.to_toml)(&MeshConfig::default()).is_none()).count();
    assert_eq!(set + options, KEYS.len(), "every key is in the file");
}

#[test]
fn presets_are_valid_and_round_trip() {
    for config in [MeshConfig::default(), MeshConfig::constrained()] {
        config.validate().unwrap();
        assert_eq!(MeshConfig::from_toml(&config.to_toml()).unwrap(), config);
    }
}

#[test]
fn every_mistake_is_named_with_its_place_and_the_nearest_key() {
    let text = "netwrok = 'x'\n\n[transport]\nlisten = [\"quic://[::]:1\", \"udp://h:1\"]\n  keepalive = 20\n\
                accept = \"lann\"\n[annouce]\nfoo = 1\n[store]\ninterval = '1s'\n";
    let found = problems(text);
    let expect = [
        "c.toml:1:1: unknown key netwrok: did you mean network?",
        "c.toml:4:28: transport.listen: \"udp://h:1\" does not begin with quic:// or tcp://",
        "c.toml:5:15: transport.keepalive: expected a duration such as \"30s\" (ms, s, m, h, d), got a whole number",
        "c.toml:6:10: transport.accept: \"lann\" is none of lan, any: did you mean \"lan\"?",
        "c.toml:7:2: unknown section [annouce]: did you mean [announce]?",
        "c.toml:10:1: unknown key store.interval: did you mean announce.interval?",
    ];
    assert_eq!(found, expect);
}

#[test]
fn broken_syntax_is_named_beside_other_mistakes() {
    let found = problems("network = \"a\nlisten = 1\n[transport]\npears = []\n");
    assert!(found.iter().any(|p| p.starts_with("c.toml:1:")), "{found:?}");
    assert!(
        found.iter().any(|p| p.contains("4:1: unknown key transport.pears: did you mean transport.peers?")),
        "{found:?}"
    );
}

#[test]
fn columns_count_characters() {
    assert_eq!(
        problems("[health]\nhosts = [\"ä\"] \nlisten = \"ö\"\n"),
        ["c.toml:3:10: health.listen: \"ö\" is no address: write IP:PORT, as in 127.0.0.1:7411, or off"]
    );
}

#[test]
fn contradictions_stand_at_the_key_that_was_set() {
    assert_eq!(
        problems("[announce]\ninterval = '20m'\nlifetime = '30m'\n"),
        ["c.toml:3:1: announce.lifetime: 30m is less than twice announce.interval (20m): one lost announce \
          would lose the route"]
    );
    let found = problems("[health]\nlisten = '127.0.0.1:7410'\n");
    assert!(found[0].contains("want the same TCP port"), "{found:?}");
    let found = problems("[logging]\nfilter = 'info,x=loud'\n");
    assert!(found[0].starts_with("c.toml:2:1: logging.filter: "), "{found:?}");
    let found = problems("[crypto]\nreceiver_key_rotation = '11d'\n");
    assert!(found[0].ends_with("21d is less than twice crypto.receiver_key_rotation (11d)"), "{found:?}");
    let found = problems("[crypto]\nreceiver_key_rotation = '1d'\nreceiver_key_sealable = '2d'\n");
    assert!(found[0].contains("1d keeps more than 12 keys alive at a time (each lives 16d)"), "{found:?}");
    let found = problems("[store]\nmessage_ttl = '15d'\n");
    assert!(found[0].contains("out of range, 10s to 14d"), "{found:?}");
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    let file = "network = 'file'\n[health]\nlisten = 'off'\n[logging]\nfilter = 'debug'\n";
    let loaded = Layers::new()
        .text("c.toml", file)
        .env(env(&[
            ("QPC_NETWORK", "env"),
            ("QPC_LISTEN", "tcp://127.0.0.1:1, quic://127.0.0.1:2"),
            ("QPC_LOG", ""),
            ("QPC_DATA_DIR", "/x"),
            ("PATH", "/bin"),
        ]))
        .flag("--network", "network", vec!["flag".into()])
        .flag("--peer", "transport.peers", vec!["tcp://a:1".into(), "tcp://b:1".into()])
        .flag("--health-listen", "health.listen", vec![])
        .load()
        .unwrap();
    assert_eq!(loaded.config.identity.network, "flag");
    assert_eq!(loaded.config.health.listen, HealthListen::Off);
    assert_eq!(loaded.config.transport.listen.len(), 2);
    assert_eq!(loaded.config.transport.peers.len(), 2);
    assert_eq!(loaded.config.logging.filter, "debug");
    let origin = |key: &str| {
        loaded.entries().into_iter().find(|e| e.key == key).map(|e| e.origin.to_string()).unwrap()
    };
    assert_eq!(origin("network"), "flag --network");
    assert_eq!(origin("transport.listen"), "environment variable QPC_LISTEN");
    assert_eq!(origin("health.listen"), "c.toml:3:1");
    assert_eq!(origin("announce.interval"), "default");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn mistakes_in_environment_and_flags_name_them() {
    let error = Layers::new()
        .env(env(&[("QPC_STORE_CACHE", "12MB"), ("QPC_LISTN", "x")]))
        .flag("--listen", "transport.listen", vec!["h:1".into()])
        .load()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("environment variable QPC_STORE_CACHE: store.cache: \"12MB\" is no size"),
        "{text}"
    );
    assert!(text.contains("flag --listen: \"h:1\" does not begin with quic:// or tcp://"), "{text}");
    let odd = Layers::new().env(env(&[("QPC_LISTN", "x")])).load().unwrap();
    assert_eq!(odd.warnings, ["environment variable QPC_LISTN sets nothing: did you mean QPC_LISTEN?"]);
    // Values for playbooks are nobody's slip.
    let playbooks = Layers::new().env(env(&[("QPC_PB_LISTN", "x")])).load().unwrap();
    assert!(playbooks.warnings.is_empty(), "{:?}", playbooks.warnings);
}

#[test]
fn threads_of_links_are_a_word_or_a_number() {
    let read = |text: &str| MeshConfig::from_toml(&format!("[transport]\nlink_threads = {text}\n"));
    let threads = |text: &str| read(text).unwrap().transport.link_threads;
    assert_eq!(threads("\"auto\""), LinkThreads::Auto);
    assert_eq!(threads("0"), LinkThreads::Exactly(0));
    assert_eq!(threads("0x10"), LinkThreads::Exactly(16));
    for (wrong, got) in [("\"two\"", "two"), ("-1", "-1"), ("2.0", "a number with a point")] {
        let text = read(wrong).unwrap_err().to_string();
        assert!(text.contains("expected \"auto\", or a whole number from 0 to 64, got "), "{text}");
        assert!(text.contains(got), "{text}");
    }
    assert_eq!(
        problems("[transport]\nlink_threads = 65\n"),
        ["c.toml:2:1: transport.link_threads: 65 is out of range, 0 to 64"]
    );
    let loaded = Layers::new().env(env(&[("QPC_TRANSPORT_LINK_THREADS", " 2 ")])).load().unwrap();
    assert_eq!(loaded.config.transport.link_threads, LinkThreads::Exactly(2));
    let error = Layers::new().env(env(&[("QPC_TRANSPORT_LINK_THREADS", "many")])).load().unwrap_err();
    assert!(error.to_string().contains("or a whole number from 0 to 64, got \"many\""), "{error}");
}

#[test]
fn by_itself_a_node_leaves_two_cores_alone_and_one_of_more() {
    let auto = |cores| LinkThreads::Auto.on(cores);
    assert_eq!([1, 2, 3, 4, 9, 64].map(auto), [0, 0, 2, 3, 8, 8]);
    assert_eq!(LinkThreads::Exactly(2).on(1), 2);
}

#[test]
fn accept_follows_listen_until_it_is_set() {
    let mut config = MeshConfig::default();
    assert_eq!((config.accept(), config.listen_urls().len()), (Accept::Lan, 2));
    config.transport.listen = vec!["tcp://127.0.0.1:0".parse().unwrap()];
    assert_eq!((config.accept(), config.listen_urls().len()), (Accept::Any, 1));
    config.transport.accept = Some(Accept::Lan);
    assert_eq!(config.accept(), Accept::Lan);
}

proptest! {
    #[test]
    fn durations_and_sizes_round_trip(ms in 0..u64::MAX, bytes in 0..u64::MAX) {
        let duration = Duration::from_millis(ms);
        prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
    }

    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "\\PC{0,80}", line in "[a-z]{1,12} = [\\[\"0-9a-z.\\]]{0,12}") {
        let _ = parse_duration(&text);
        let _ = text.parse::<ByteSize>();
        let _ = text.parse::<PeerUrl>();
        let _ = text.parse::<HealthListen>();
        let _ = MeshConfig::from_toml(&text);
        let _ = MeshConfig::from_toml(&format!("[transport]\n{line}\n"));
    }

    #[test]
    fn configurations_round_trip_through_toml(
        network in "[a-zA-Z0-9\"'\\\\#äö]{1,20}",
        secret in prop::option::of("[a-z/ .\"]{1,20}"),
        interval_s in 1u64..43_200,
        hops in 1u8..=128,
        ports in prop::collection::btree_set(1u16.., 0..4),
        pin in prop::option::of(prop::array::uniform16(1u8..255)),
        cache_kib in 64u64..100_000,
        accept in prop::option::of(prop::sample::select(vec![Accept::Lan, Accept::Any])),
        json in any::<bool>(),
    ) {
        let mut config = MeshConfig::default();
        config.identity.network = network;
        config.identity.network_secret_file = secret.map(PathBuf::from);
        config.announce.interval = secs(interval_s);
        config.announce.lifetime = secs(interval_s * 2);
        config.announce.max_hops = hops;
        config.health.listen = HealthListen::Off;
        config.transport.listen =
            ports.iter().map(|p| ListenUrl { scheme: Scheme::Quic, host: "::1".into(), port: *p }).collect();
        config.transport.peers = ports
            .iter()
            .map(|p| PeerUrl {
                scheme: Scheme::Tcp,
                host: "relay.example.org".into(),
                port: *p,
                pin: pin.map(crate::wire::Address),
            })
            .collect();
        config.transport.accept = accept;
        config.store.cache = ByteSize(cache_kib * 1024);
        config.logging.format = if json { LogFormat::Json } else { LogFormat::Text };
        prop_assert_eq!(MeshConfig::from_toml(&config.to_toml()).unwrap(), config);
    }
}

#[test]
fn a_preset_is_what_the_rest_begins_from_and_says_so() {
    let load = |text: &str, preset: &str| {
        let loaded = Layers::new().text("config.toml", text).env(env(&[("QPC_PRESET", preset)])).load();
        loaded.map_err(|error| error.to_string())
    };
    let loaded = load("preset = 'constrained'\n[store]\nhistory_max = '2MiB'\n", "").unwrap();
    let mut wanted = MeshConfig::of(Preset::Constrained);
    wanted.store.history_max = ByteSize(2 << 20);
    assert_eq!(loaded.config, wanted);
    let origin =
        |key: &str| loaded.entries().into_iter().find(|entry| entry.key == key).unwrap().origin.to_string();
    assert_eq!(origin("transport.links_max"), "preset constrained");
    assert_eq!(origin("store.history_max"), "config.toml:3:1");
    assert_eq!(origin("preset"), "config.toml:1:1");
    assert_eq!(origin("network"), "default");

    // The environment goes before the file, wherever in it the preset stands.
    let loaded = load("preset = 'constrained'\n", "personal").unwrap();
    assert_eq!(loaded.config, MeshConfig::of(Preset::Personal));
    let wrong = load("preset = 'huge'\n", "").unwrap_err();
    assert!(wrong.contains("config.toml:1:10") && wrong.contains("constrained"), "{wrong}");
    for preset in [Preset::Default, Preset::Constrained, Preset::Personal, Preset::Relay] {
        MeshConfig::of(preset).validate().unwrap();
        let again = MeshConfig::from_toml(&MeshConfig::of(preset).to_toml()).unwrap();
        assert_eq!(again, MeshConfig::of(preset));
    }
}
