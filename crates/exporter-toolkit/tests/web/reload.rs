//! Changes of the web configuration's files while a server runs.

use std::{fs, os::unix::fs::symlink, sync::Arc, time::Duration};

use exporter_toolkit::{CancellationToken, Limits, WebConfig};
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use tokio::{io::AsyncReadExt, sync::mpsc, time::timeout};

use crate::{
    pki::{Pki, hash, login},
    server::TestServer,
};

/// A change must be in use within this time.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// A volume as Kubernetes mounts it: the files are behind a link that is replaced.
struct Volume {
    pki: Pki,
    version: u32,
}

impl Volume {
    /// Replaces `web.yml`, the certificate and its key at once.
    fn replace(&mut self, text: &str) {
        self.version += 1;
        let pki = &self.pki;
        let purpose = ExtendedKeyUsagePurpose::ServerAuth;
        pki.issue("server", &["localhost"], purpose);
        let data = format!("..{}", self.version);
        fs::create_dir(pki.path(&data)).unwrap();
        for file in ["server.crt", "server.key"] {
            fs::copy(pki.path(file), pki.path(&data).join(file)).unwrap();
        }
        fs::write(pki.path(&data).join("web.yml"), text).unwrap();
        symlink(&data, pki.path("..new")).unwrap();
        fs::rename(pki.path("..new"), pki.path("..data")).unwrap();
    }
}

#[tokio::test]
async fn changes_are_activated_and_invalid_ones_leave_the_last_valid_in_use() {
    let tls = "tls_server_config: {cert_file: server.crt, key_file: server.key}";
    let users = |user: &str| format!("{tls}\nbasic_auth_users: {{{user}}}\n");
    let dave = format!("dave: {}", hash("secret", 4));
    let carol = format!("carol: {}", hash("geheim", 4));
    let (pki, version) = (Pki::new(), 0);
    let mut volume = Volume { pki, version };
    volume.replace(&users(&dave));
    symlink("..data", volume.pki.path("mounted")).unwrap();
    let file = volume.pki.path("mounted").join("web.yml");
    let config = Arc::new(WebConfig::load(Some(&file)).unwrap());
    let (sender, mut reloads) = mpsc::unbounded_channel();
    let on_reload = move |valid| sender.send(valid).unwrap();
    tokio::spawn(config.clone().watch(on_reload, CancellationToken::new()));
    let server = TestServer::new(config.clone(), Limits::default());
    let mut reload = async || timeout(MAX_DELAY, reloads.recv()).await.ok().flatten();
    let client = volume.pki.client();
    let certificate = async || {
        client
            .get(&server, "/metrics", "")
            .await
            .unwrap()
            .certificate
    };
    let first = certificate().await;
    let status = async |user| client.status(&server, "/metrics", user).await;
    assert_eq!(status("dave:secret").await, "200");
    let mut open = client.connect(&server).await.unwrap();

    // The certificate, its key and the users in one step; connections of the old certificate end.
    volume.replace(&users(&carol));
    assert_eq!(reload().await, Some(true));
    assert_eq!(status("carol:geheim").await, "200");
    assert_eq!(status("dave:secret").await, "401");
    assert!(certificate().await != first);
    let ended = timeout(MAX_DELAY, open.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))));

    // An invalid change is reported once.
    volume.replace("basic_auth_users: {dave: HUNTER2}");
    assert_eq!(reload().await, Some(false));
    assert_eq!(reload().await, None);
    assert_eq!(status("carol:geheim").await, "200");

    let restart = "http_server_config: {http2: false}\nrate_limit: {interval: 1h, burst: 1}\n";
    volume.replace(&(users(&carol) + restart));
    assert_eq!(reload().await, Some(true));
    assert_eq!(
        config.warnings(),
        ["http_server_config.http2", "rate_limit"]
            .map(|key| format!("{key} has changed: it takes effect after a restart"))
    );
    for _ in 0..2 {
        assert_eq!(status("carol:geheim").await, "200");
    }

    // A key of another certificate, in place; then a removed file.
    let key = file.with_file_name("server.key");
    let good = fs::read(&key).unwrap();
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert_eq!(reload().await, Some(false));
    fs::write(&key, good).unwrap();
    assert_eq!(reload().await, Some(true));
    fs::remove_file(volume.pki.path("..data")).unwrap();
    assert_eq!(reload().await, Some(false));
    assert_eq!(status("carol:geheim").await, "200");
}

#[tokio::test]
async fn another_file_is_prepared_and_then_activated() {
    let pki = Pki::new();
    let users = |name: &str| format!("basic_auth_users: {{{name}: {}}}", hash("secret", 4));
    let first = pki.write("first.yml", &users("dave"));
    let second = pki.write("second.yml", &users("carol"));
    let bad = pki.write("bad.yml", "basic_auth_users: {dave: HUNTER2}");
    let config = WebConfig::load(Some(&first)).unwrap();
    assert!(config.prepare(Some(&first)).unwrap().is_none());
    assert!(config.prepare(Some(&bad)).is_err());
    let config = Arc::new(config);
    let server = TestServer::new(config.clone(), Limits::default());
    assert_eq!(server.status("/metrics", "").await, 401);
    let prepared = config.prepare(Some(&second)).unwrap().unwrap();
    assert!(config.activate(prepared).is_empty());
    assert_eq!(server.status("/metrics", &login("carol:secret")).await, 200);
    assert_eq!(server.status("/metrics", &login("dave:secret")).await, 401);
    let open = config.prepare(None).unwrap().unwrap();
    config.activate(open);
    assert_eq!(server.status("/metrics", "").await, 200);
}
