//! The table of routes, read from the router itself: a route that is added to any module is in it on its first day.

use axum::Router;
use std::collections::BTreeMap;

/// One route as the router holds it: its path, with the names of its parameters, and the methods it answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) path: String,
    pub(super) methods: Vec<&'static str>,
}

const METHODS: [(&str, &str); 6] = [
    ("get", "GET"),
    ("delete", "DELETE"),
    ("patch", "PATCH"),
    ("post", "POST"),
    ("put", "PUT"),
    ("head", "HEAD"),
];

/// Reads the router's own description (`Debug`): its endpoints by number, and the path of each number. Panics when axum
/// words it in another way, rather than finding less.
pub(super) fn of(router: &Router) -> Vec<Route> {
    let text = format!("{router:?}");
    let (endpoints, rest) = text.split_once("node: Node {").expect("the node behind the endpoints");
    let rest = rest.split_once("paths: {").expect("its paths").1;
    let paths = rest.split_once('}').map_or(rest, |(paths, _)| paths);
    // `{` stands in paths as well: read pair by pair.
    let mut by_number: BTreeMap<u32, String> = BTreeMap::new();
    for part in rest.split("RouteId(").skip(1) {
        let Some((number, tail)) = part.split_once("): \"") else {
            break;
        };
        let Some((path, _)) = tail.split_once('"') else { break };
        by_number.insert(number.parse().expect("a number"), path.to_owned());
    }
    assert!(
        !paths.is_empty() && !by_number.is_empty(),
        "axum describes its paths in another way"
    );
    let mut routes = Vec::new();
    for part in endpoints.split("RouteId(").skip(1) {
        let (number, tail) = part.split_once("): ").expect("an endpoint");
        let number: u32 = number.parse().expect("a number");
        let path = by_number.remove(&number).expect("every endpoint has a path");
        let methods: Vec<&'static str> = match tail.strip_prefix("MethodRouter(") {
            Some(tail) if tail.contains("allow_header: Skip") => METHODS.iter().map(|(_, m)| *m).collect(),
            Some(tail) => METHODS
                .iter()
                .filter(|(name, _)| !tail.contains(&format!("{name}: None")))
                .map(|(_, m)| *m)
                .collect(),
            // A service without methods of its own answers them all.
            None => METHODS.iter().map(|(_, m)| *m).collect(),
        };
        routes.push(Route { path, methods });
    }
    assert!(by_number.is_empty(), "every path has an endpoint: {by_number:?}");
    routes.sort();
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{any, get};

    #[test]
    fn every_route_is_found_with_its_methods() {
        let inner = Router::new().route("/{id}/x", get(|| async {}).post(|| async {}));
        let router: Router = Router::new()
            .nest("/api/m", inner)
            .route("/any/{*rest}", any(|| async {}))
            .layer(axum::Extension(1));
        let found = of(&router);
        let paths: Vec<&str> = found.iter().map(|r| r.path.as_str()).collect();
        assert_eq!(paths, ["/any/{*rest}", "/api/m/{id}/x"]);
        assert_eq!(found[0].methods.len(), METHODS.len());
        assert_eq!(found[1].methods, ["GET", "POST"]);
    }
}
