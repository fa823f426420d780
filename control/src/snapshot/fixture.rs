//! A small sound content for tests.

use clawgate_shared::content::Content;
use clawgate_shared::proto::node::{
    Bot, BotState, BotToken, Project, ProviderKey, Resource, Settings, Tenant, Vendor, resource::Body,
};

pub(crate) struct Parts {
    pub(crate) settings: Option<Settings>,
    pub(crate) bot: Bot,
    pub(crate) key: ProviderKey,
    pub(crate) vendor: Vendor,
}

pub(crate) fn parts() -> Parts {
    Parts {
        settings: Some(Settings { max_config_age_secs: 86_400, poison: String::new() }),
        bot: Bot {
            tenant_id: "ten_1".into(),
            project_id: "prj_1".into(),
            hostname: "alpha".into(),
            state: BotState::Enabled.into(),
            tokens: vec![BotToken {
                id: "tok_1".into(),
                sha256: vec![7; 32],
                expires_at_micros: 0,
                network: String::new(),
            }],
            key_strategy: "round_robin".into(),
            on_disconnect: "cancel".into(),
            include_usage: "auto".into(),
            ..Bot::default()
        },
        key: ProviderKey {
            tenant_id: "ten_1".into(),
            vendor: "openai".into(),
            weight: 1,
            secret_version: 1,
            enabled: true,
            ..ProviderKey::default()
        },
        vendor: Vendor {
            tenant_id: "ten_1".into(),
            slug: "house".into(),
            title: "House model".into(),
            base_url: "http://127.0.0.1:9001/v1".into(),
            auth: "bearer".into(),
            dialect: "openai".into(),
            ..Vendor::default()
        },
    }
}

impl Parts {
    pub(crate) fn content(self) -> Content {
        let tenant = Tenant { slug: "acme".into(), suspended: false, time_zone: "UTC".into(), ..Tenant::default() };
        let project = Project { tenant_id: "ten_1".into(), slug: "main".into() };
        let mut bodies = vec![
            ("ten_1", Body::Tenant(tenant)),
            ("prj_1", Body::Project(project)),
            ("bot_1", Body::Bot(self.bot)),
            ("key_1", Body::ProviderKey(self.key)),
            ("ven_1", Body::Vendor(self.vendor)),
        ];
        bodies.extend(self.settings.map(|settings| ("settings", Body::Settings(settings))));
        let mut content = Content::default();
        for (id, body) in bodies {
            content.upsert(Resource { id: id.into(), body: Some(body) }).expect("known kind");
        }
        content
    }
}

pub(crate) fn content() -> Content {
    parts().content()
}
