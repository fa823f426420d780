use clawgate_shared::seal::SecretBinding;

use super::*;
use crate::store::migrate;

const BINDING: SecretBinding<'_> = SecretBinding {
    tenant_id: "ten_1",
    key_id: "key_1",
    vendor: "openai",
    origin: "https://api.openai.com:443",
    secret_version: 1,
};

struct Place {
    dir: tempfile::TempDir,
    db: Db,
}

async fn place() -> Place {
    let dir = tempfile::tempdir().expect("directory");
    let db = Db::connect(&format!("sqlite://{}", dir.path().join("c.db").display())).await.expect("opens");
    migrate::run(&db, None).await.expect("migrates");
    Place { dir, db }
}

fn secret(text: &str) -> NewSecret {
    NewSecret::parse(Zeroizing::new(text.to_owned())).expect("printable")
}

#[tokio::test]
async fn a_secret_reaches_the_node_and_only_under_its_binding() {
    let place = place().await;
    let vault = Vault::open(&place.db, None, &place.dir.path().join("master.key")).await.expect("opens");
    let row = vault.seal_secret(&BINDING, &secret("sk-canary-0123456789")).expect("seals");
    let node = SealingKey::generate().expect("random");
    let sent = vault.reseal_for_node(&node, &BINDING, &row).expect("reseals");
    let sealed = Sealed::from_parts(&sent.nonce, &sent.ciphertext).expect("form");
    assert_eq!(node.open(&sealed, &BINDING.aad()).expect("opens").as_slice(), b"sk-canary-0123456789");
    let moved = SecretBinding { origin: "https://evil.example:443", ..BINDING };
    assert!(matches!(vault.reseal_for_node(&node, &moved, &row), Err(VaultError::Seal(SealError::Open))));
    assert!(!format!("{row:?} {vault:?} {sent:?}").contains("canary"));
    let shown = vault.fingerprint(&secret("sk-canary-0123456789"));
    assert_eq!((shown.last4.as_str(), shown.fingerprint.len()), ("6789", 16));
    assert_eq!(vault.fingerprint(&secret("short")).last4, "");
}

#[tokio::test]
async fn the_right_key_is_demanded_once_something_was_sealed() {
    let place = place().await;
    let file = place.dir.path().join("master.key");
    let first = Vault::open(&place.db, None, &file).await.expect("makes a key");
    let blob = first.seal_blob(Purpose::CaKey, "", b"pem").expect("seals");
    let again = Vault::open(&place.db, None, &file).await.expect("reads the file");
    assert_eq!(again.open_blob(Purpose::CaKey, "", &blob).expect("opens").as_slice(), b"pem");
    assert!(again.open_blob(Purpose::NodeSealingKey, "", &blob).is_err());
    assert!(again.open_blob(Purpose::CaKey, "x", &blob).is_err());

    let text = std::fs::read_to_string(&file).expect("key file");
    std::fs::remove_file(&file).expect("removes");
    assert!(matches!(Vault::open(&place.db, None, &file).await, Err(VaultError::Missing)));
    assert!(!file.exists(), "no new key is made beside sealed values");
    let other = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7_u8; 32]);
    assert!(matches!(Vault::open(&place.db, Some(&other), &file).await, Err(VaultError::Wrong)));
    assert!(Vault::open(&place.db, Some(&text), &file).await.is_ok());
}

#[tokio::test]
async fn bad_key_files_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place().await;
    let file = place.dir.path().join("master.key");
    let open = || Vault::open(&place.db, None, &file);
    std::fs::write(&file, "c2hvcnQ=").expect("writes");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(matches!(open().await, Err(VaultError::MasterKey(MasterKeyError::Readable(_)))));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    assert!(matches!(open().await, Err(VaultError::MasterKey(MasterKeyError::Malformed))));
    let given = Vault::open(&place.db, Some("not base64!"), &file).await;
    assert!(matches!(given, Err(VaultError::MasterKey(MasterKeyError::Malformed))));
}

#[test]
fn secrets_are_printable_and_bounded() {
    for (text, ok) in [
        ("sk-1", true),
        ("  sk-1\n", true),
        ("", false),
        (" ", false),
        ("a\nb", false),
        ("a\0b", false),
        ("schl\u{fc}ssel", false),
    ] {
        assert_eq!(NewSecret::parse(Zeroizing::new(text.into())).is_ok(), ok, "{text:?}");
    }
    assert!(NewSecret::parse(Zeroizing::new("x".repeat(8193))).is_err());
}
