//! Bounds what requests hold before a service sees them ([`super::arriving`]), and marks the error for a request that
//! was too large to read: nothing was applied.
//!
//! tonic refuses such a request with OUT_OF_RANGE, without an outcome, so a client would have to assume that a write
//! may have been applied. No service of a node returns OUT_OF_RANGE itself.

use super::arriving::{Arriving, ArrivingBody};
use ringfort_proto::metadata;
use ringfort_proto::outcome;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// A service whose calls have one request each.
#[derive(Clone)]
pub struct Bounded<S> {
    service: S,
    arriving: Arc<Arriving>,
}

impl<S> Bounded<S> {
    pub fn new(service: S, arriving: &Arc<Arriving>) -> Bounded<S> {
        Bounded { service, arriving: arriving.clone() }
    }
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<ArrivingBody<Body>>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.service.call(request.map(|body| ArrivingBody::new(body, self.arriving.clone())));
        Box::pin(async move {
            let response = answer.await?;
            Ok(match Status::from_header_map(response.headers()) {
                Some(status) if is_too_large(&status) => outcome::invalid(status.message()).into_http(),
                _ => response,
            })
        })
    }
}

fn is_too_large(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.metadata().get(metadata::OUTCOME).is_none()
}
