//! Every way to prove who connects, and encryption, against real servers: the binary enqueues and reads back.

use std::{fs, path::PathBuf};

use anyhow::Result;
use data_encoding::BASE64URL_NOPAD;
use naq_tests::{NatsOptions, ServerVersion};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::site::{Site, on_every_server};

on_every_server!(a_token_opens, an_nkey_opens, a_credentials_file_opens, certificates_of_both_sides_are_checked);

async fn on(version: ServerVersion, extra: String) -> Result<Site> {
    Site::on_server(version, NatsOptions { extra, ..NatsOptions::default() }).await
}

/// Enqueues and finds the job again, which takes two connections.
async fn opens(site: &Site) -> Result<()> {
    site.enqueue("naq.echo", &json!({}), &["--job-id", "in"]).await?;
    assert_eq!(site.json(&["job", "status", "in"]).await?["status"], "pending");
    Ok(())
}

async fn is_closed(site: &Site) -> Result<()> {
    let refused = site.run(&["job", "enqueue", "naq.echo"]).await?;
    assert_ne!(refused.code(), Some(0), "{refused:#?}");
    assert!(refused.stderr.contains("hint"), "{}", refused.stderr);
    Ok(())
}

async fn a_token_opens(version: ServerVersion) -> Result<()> {
    let mut site = on(version, "authorization { token: let-me-in }".to_owned()).await?;
    is_closed(&site).await?;
    site.set("NAQ_NATS__AUTH__TOKEN", "let-me-in");
    opens(&site).await
}

async fn an_nkey_opens(version: ServerVersion) -> Result<()> {
    let user = KeyPair::new_user();
    let mut site = on(version, format!("authorization {{ users: [{{ nkey: {} }}] }}", user.public_key())).await?;
    is_closed(&site).await?;
    site.set("NAQ_NATS__AUTH__NKEY_SEED", user.seed()?);
    opens(&site).await
}

async fn a_credentials_file_opens(version: ServerVersion) -> Result<()> {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let system = KeyPair::new_account();
    let unlimited = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let of_operator = token(&operator, &operator, json!({"type": "operator", "version": 2}))?;
    let of_account = token(&operator, &account, json!({"type": "account", "version": 2, "limits": unlimited}))?;
    let of_system = token(&operator, &system, json!({"type": "account", "version": 2}))?;
    let rights = json!({"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
    let of_user = token(&account, &user, rights)?;
    let extra = format!(
        "operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{ {system}: {of_system}, {}: {of_account} }}",
        account.public_key(),
        system = system.public_key()
    );
    let mut site = on(version, extra).await?;
    is_closed(&site).await?;
    let file = site.path("user.creds");
    let seed = user.seed()?;
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(&file, text)?;
    site.set("NAQ_NATS__AUTH__CREDENTIALS_FILE", file.display());
    opens(&site).await
}

/// A signed statement about `subject`.
fn token(issuer: &KeyPair, subject: &KeyPair, claims: Value) -> Result<String> {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({"jti": "naq-test", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": "naq-test", "nats": claims});
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&header), part(&body));
    let signature = issuer.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
}

async fn certificates_of_both_sides_are_checked(version: ServerVersion) -> Result<()> {
    let file = |name: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name);
    let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server-key.pem"));
    let quoted = |path: &PathBuf| format!("{:?}", path.display().to_string());
    // A server that begins with the handshake, and still greets those who wait for it.
    let first = if version == ServerVersion::V2_9 { "" } else { "handshake_first: auto" };
    let extra = format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}, verify: true, {first} }}",
        quoted(&cert),
        quoted(&key),
        quoted(&ca)
    );
    let mut site = on(version, extra).await?;
    // Its authority is not known.
    is_closed(&site).await?;
    site.set("NAQ_NATS__TLS__CA_FILE", ca.display());
    // It wants a certificate from us.
    is_closed(&site).await?;
    site.set("NAQ_NATS__TLS__CERT_FILE", file("client.pem").display());
    site.set("NAQ_NATS__TLS__KEY_FILE", file("client-key.pem").display());
    site.set("NAQ_NATS__TLS__ENABLED", "true");
    opens(&site).await?;
    if version != ServerVersion::V2_9 {
        site.set("NAQ_NATS__TLS__FIRST", "true");
        assert_eq!(site.json(&["job", "status", "in"]).await?["status"], "pending");
    }
    Ok(())
}
