//! A service that refuses every call with a reason, instead of leaving it unanswered or "not implemented".

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

/// Refuses the calls of the service `S`.
pub struct Refusing<S> {
    status: Status,
    service: PhantomData<fn() -> S>,
}

impl<S> Refusing<S> {
    pub fn new(status: Status) -> Refusing<S> {
        Refusing { status, service: PhantomData }
    }
}

impl<S> Clone for Refusing<S> {
    fn clone(&self) -> Refusing<S> {
        Refusing::new(self.status.clone())
    }
}

impl<S: NamedService> NamedService for Refusing<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Refusing<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(self.status.clone().into_http()))
    }
}
