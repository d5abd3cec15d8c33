//! The page and the API below `admin.base_path`, with and without a proxy that takes the path away.

use serde_json::json;

use crate::harness::World;
use crate::harness::worker::client;
use crate::harness::world::TOKEN;

#[tokio::test(flavor = "multi_thread")]
async fn links_redirects_cookies_and_assets_are_right_below_a_path() {
    let world = World::with(&[("admin.base_path", "/tools/hooks")]).await;
    let admin = world.admin().await;
    let draft = json!({ "url": world.receiver.url("/hook"), "events": ["task.failed"], "description": "/settings" });
    assert_eq!(admin.call("POST", "/tools/hooks/api/webhooks", Some(draft)).await.0, 201);
    // Probes go past the proxy.
    assert_eq!(admin.page("/readyz").await.unwrap().0, 200);

    let start = client().get(format!("{}/tools/hooks/", admin.address())).send().await.unwrap();
    assert_eq!(start.headers()["location"], "/tools/hooks/settings/webhooks");

    for kept in ["/tools/hooks", ""] {
        let at = |path: &str| format!("{}{kept}{path}", admin.address());
        let first = client().get(at("/status")).send().await.unwrap();
        let location = first.headers()["location"].to_str().unwrap().to_owned();
        assert_eq!(location, "/tools/hooks/sign-in?next=%2Fstatus");
        let form = format!("token={TOKEN}&next=%2Fstatus");
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let signed_in = client().post(at("/sign-in")).header(kind.0, kind.1).body(form).send().await.unwrap();
        assert_eq!(signed_in.headers()["location"], "/tools/hooks/status");
        let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(cookie.contains("Path=/tools/hooks"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let open = async |path: &str| {
            // Another server on this host has a cookie of the same name, which browsers send last.
            let cookies = format!("{cookie}; optio_webhooks_session=of-another-server");
            client().get(at(path)).header("cookie", cookies).send().await.unwrap().text().await.unwrap()
        };
        let page = open("/settings/webhooks").await + &open("/settings/webhooks/new").await;
        assert!(page.contains("formaction=\"/tools/hooks/settings/webhooks/try-filter\""), "{page}");
        let addresses: Vec<&str> = ["href=\"", "src=\"", "action=\""]
            .iter()
            .flat_map(|attribute| page.split(attribute).skip(1))
            .filter_map(|rest| rest.split('"').next())
            .filter(|address| address.starts_with('/'))
            .collect();
        assert!(addresses.len() > 8, "{page}");
        for address in addresses {
            let rest = address.strip_prefix("/tools/hooks").unwrap_or_else(|| panic!("{address}"));
            let answer = client().get(at(rest)).send().await.unwrap();
            assert!(answer.status().as_u16() != 404, "{address}");
        }
        assert!(page.contains(">/settings<"), "text that looks like a path stays: {page}");
    }
}
