//! Who made what lives in vendor accounts.

use clawgate_control::domain::Domain;
use clawgate_control::store::account_ids::{self, Maker, Place};
use clawgate_control::store::usage_ingest::OpenRow;

const DAY: i64 = 24 * 3600 * 1_000_000;

fn exchange(tenant_id: &str, bot: &str, key: &str, ids: &[&str], passes: bool) -> OpenRow {
    OpenRow {
        tenant_id: tenant_id.to_owned(),
        vendor: "openai".into(),
        bot_id: bot.into(),
        provider_key_id: key.into(),
        created_at: 5,
        made_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        made_ids_pass: passes,
        ..OpenRow::default()
    }
}

pub async fn makers(domain: &Domain, tenant_id: &str) {
    let place = Place { tenant_id, vendor: "openai" };
    let mut tx = domain.db.begin().await.expect("begins");
    let many: Vec<String> = (0..75).map(|number| format!("file-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let exchanges = [
        exchange(tenant_id, "bot_a", "key_1", &many, false),
        exchange(tenant_id, "bot_a", "key_1", &["resp_1", "café 日本"], true),
        exchange(tenant_id, "bot_b", "key_2", &["resp_2", "resp_1"], true),
        exchange(tenant_id, "bot_b", "", &["nowhere"], true),
    ];
    account_ids::insert(&mut tx, &exchanges.iter().collect::<Vec<_>>(), 10).await.expect("inserts");
    let late = exchange(tenant_id, "bot_c", "key_3", &["resp_2", "resp_3"], true);
    account_ids::insert(&mut tx, &[&late], 11).await.expect("inserts");
    account_ids::insert(&mut tx, &[], 11).await.expect("nothing to do");

    let ask = ["file-74", "resp_2", "café 日本", "nowhere", "resp_1", "resp_3"].map(str::to_owned);
    let found = account_ids::find(&mut tx, place, &ask).await.expect("reads");
    let maker = |id: &str, bot_id: &str, provider_key_id: &str, used_at| {
        let (id, bot_id, provider_key_id) = (id.to_owned(), bot_id.to_owned(), provider_key_id.to_owned());
        Some(Maker { id, bot_id, provider_key_id, used_at })
    };
    let want = [
        maker("file-74", "bot_a", "key_1", 10),
        maker("resp_2", "bot_b", "key_2", 10),
        maker("café 日本", "bot_a", "key_1", 10),
        None,
        maker("resp_1", "bot_a", "key_1", 10),
        maker("resp_3", "bot_c", "key_3", 11),
    ];
    assert_eq!(found, want, "the first maker stays");
    for other in [Place { vendor: "azure-openai", ..place }, Place { tenant_id: "ten_other", ..place }] {
        assert_eq!(account_ids::find(&mut tx, other, &ask[..1]).await.expect("reads"), [None]);
    }
    let first = found[0].as_ref().expect("there");
    assert!(!first.is_due(10 + DAY - 1) && first.is_due(10 + DAY));

    // What is used stays; what vendors forget by themselves goes sooner.
    account_ids::touch(&mut tx, place, &["resp_1"], 50).await.expect("notes");
    assert_eq!(account_ids::purge(&mut tx, 11, 10).await.expect("purges"), 2, "resp_2 and the one with accents");
    let left = account_ids::find(&mut tx, place, &ask).await.expect("reads");
    assert_eq!(left.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false, false, true, true]);
    assert_eq!(account_ids::purge(&mut tx, 0, 11).await.expect("purges"), 75);
    account_ids::delete_of_bot(&mut tx, "bot_a").await.expect("deletes");
    let left = account_ids::find(&mut tx, place, &ask).await.expect("reads");
    assert_eq!(left.iter().flatten().map(|maker| maker.id.as_str()).collect::<Vec<_>>(), ["resp_3"]);
    tx.commit().await.expect("commits");
}
