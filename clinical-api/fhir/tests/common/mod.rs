//! A server without a socket: the engine's router, driven by requests, on each engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

#[path = "../../examples/train_dictionary/population.rs"]
pub(crate) mod population;

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use medtech_fhir::Fhir;
use medtech_kernel::{Result, Tenant, auth::Role, http::Extension, testkit::World};
use serde_json::Value;
use tower::ServiceExt;

pub(crate) struct Site {
    pub(crate) fhir: Fhir,
    pub(crate) router: Router,
}

pub(crate) struct Client {
    router: Router,
    host: String,
    token: String,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or(Value::Null)
    }

    pub(crate) fn etag(&self) -> &str {
        self.headers.get("etag").map_or("", |v| v.to_str().unwrap())
    }

    /// Ids of the entries of a Bundle.
    pub(crate) fn ids(&self) -> Vec<String> {
        let json = self.json();
        let entries = json["entry"].as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|e| e["resource"]["id"].as_str().unwrap_or("").to_owned())
            .collect()
    }

    pub(crate) fn link(&self, relation: &str) -> Option<String> {
        let json = self.json();
        let links = json["link"].as_array().cloned().unwrap_or_default();
        links
            .iter()
            .find(|l| l["relation"] == relation)
            .map(|l| l["url"].as_str().unwrap().to_owned())
    }
}

pub(crate) fn site(world: &World) -> Site {
    let fhir = Fhir::new(world.ctx.clone());
    let router = fhir.router().layer(Extension(world.ctx.clone()));
    Site { fhir, router }
}

impl Site {
    pub(crate) async fn client(&self, world: &World, tenant: &Tenant, role: Role) -> Result<Client> {
        let (_, token) = world
            .sign_in(tenant, "user:00000000-0000-0000-0000-000000000001", role)
            .await?;
        Ok(Client {
            router: self.router.clone(),
            host: format!("{}.localhost", tenant.slug),
            token,
        })
    }
}

impl Client {
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let path = path.split_once("/fhir/R4/").map_or(path, |(_, rest)| rest);
        let sign = if path.is_empty() { "" } else { "/" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/fhir/R4{sign}{path}"))
            .header("host", &self.host);
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .router
            .clone()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(
            "POST",
            path,
            &[("content-type", "application/fhir+json")],
            body.to_string(),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(
            "PUT",
            path,
            &[("content-type", "application/fhir+json")],
            body.to_string(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], Body::empty()).await
    }

    /// The same door with another token, or none.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self {
            router: self.router.clone(),
            host: self.host.clone(),
            token: token.to_owned(),
        }
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}
