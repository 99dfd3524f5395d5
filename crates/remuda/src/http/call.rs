//! The calling listener: `POST /call`, the body is the job, the response its result.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri};
use remuda_engine::{Remote, RemoteError};
use remuda_protocol::encode::{self, Fault};
use remuda_protocol::{Code, Raw};

use crate::http::server::Traffic;

/// The header, and the parameter, by which a caller says how long its job may take.
const TIMEOUT_HEADER: &str = "x-remuda-timeout-ms";
const TIMEOUT_PARAMETER: &str = "timeout_ms";
/// The most bytes of bodies that have not arrived wholly, of all connections together.
const UNFINISHED_LIMIT: usize = 256 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What the calling listener answers from.
pub(super) struct Calls {
    remote: Remote,
    token: Option<String>,
    /// How long a body may take to arrive.
    body_timeout: Duration,
    traffic: Arc<Traffic>,
    /// Bytes of bodies that have not arrived wholly.
    unfinished: AtomicUsize,
}

/// Why there is no result, and the status that says so.
struct Refusal {
    status: StatusCode,
    code: Code,
    message: String,
    traceback: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), traceback: None }
    }

    /// In `headers` is nothing.
    fn response(self, headers: HeaderMap) -> Response<Full<Bytes>> {
        let mut body = Vec::new();
        let traceback = self.traceback.as_deref();
        encode::fault(&mut body, None, &Fault { code: self.code, error: &self.message, traceback });
        let mut response = with_json(self.status, body.into(), headers);
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<RemoteError> for Refusal {
    fn from(error: RemoteError) -> Self {
        let code = Code::parse(error.code.as_str()).unwrap_or(Code::Internal);
        let status = status_of(code, error.may_have_run);
        Self { status, code, message: error.message, traceback: error.traceback }
    }
}

/// The status for a job that has no result.
fn status_of(code: Code, may_have_run: bool) -> StatusCode {
    match code {
        // A result that is too large is the handler's fault, a job that is, the caller's.
        Code::BodyTooLarge if may_have_run => StatusCode::INTERNAL_SERVER_ERROR,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::BadRequest | Code::UnknownOp | Code::HandshakeRequired => StatusCode::BAD_REQUEST,
        Code::Unauthorized => StatusCode::UNAUTHORIZED,
        Code::Poisoned => StatusCode::UNPROCESSABLE_ENTITY,
        Code::QueueFull => StatusCode::TOO_MANY_REQUESTS,
        Code::QueueTimeout | Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::WorkerLost => StatusCode::BAD_GATEWAY,
        Code::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Code::HandlerError | Code::Cancelled | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Calls {
    pub(super) fn new(
        remote: Remote,
        token: Option<&str>,
        body_timeout: Duration,
        traffic: Arc<Traffic>,
    ) -> Self {
        let token = token.map(str::to_owned);
        Self { remote, token, body_timeout, traffic, unfinished: AtomicUsize::new(0) }
    }

    /// Answers a request. There is but one thing here to ask for, so it needs no router, which would
    /// cost half of all that a job allocates.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let result = self.call(&parts, body).await;
        // The response takes over the room of the request's headers.
        let mut headers = parts.headers;
        headers.clear();
        let response = match result {
            Ok(result) => with_json(StatusCode::OK, result, headers),
            Err(refusal) => refusal.response(headers),
        };
        self.traffic.answered(response.status());
        response
    }

    async fn call(&self, parts: &Parts, body: Incoming) -> Result<Bytes, Refusal> {
        self.admit(&parts.method, &parts.uri, &parts.headers)?;
        let timeout = timeout(&parts.uri, &parts.headers)?;
        self.check_length(&parts.headers)?;
        let read = tokio::time::timeout(self.body_timeout, self.read(body));
        let body = read.await.map_err(|_| {
            let message = "the body took too long to arrive: send it as a whole";
            Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::BadRequest, message)
        })??;
        let json = Raw::new(&body).map_err(|error| {
            let message = format!("the body is not a JSON value: {error}");
            Refusal::new(StatusCode::BAD_REQUEST, Code::BadRequest, message)
        })?;
        let json = body.slice_ref(json.as_bytes());
        Ok(self.remote.call(json, timeout).await?)
    }

    /// Who may call, and how.
    fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if uri.path() != "/call" {
            let message = "there is only /call here";
            return Err(Refusal::new(StatusCode::NOT_FOUND, Code::BadRequest, message));
        }
        if *method != Method::POST {
            let message = "a job is sent by POST";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::BadRequest, message));
        }
        match &self.token {
            Some(token) => check_token(token, headers)?,
            // A browser says from which page a request comes: none may use a pool without a token.
            None if headers.contains_key(ORIGIN) => {
                let message = "a web page may not call a pool that has no token";
                return Err(Refusal::new(StatusCode::FORBIDDEN, Code::Unauthorized, message));
            }
            None => {}
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let message = "send the job with the header Content-Type: application/json";
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::BadRequest,
                message,
            ));
        }
        Ok(())
    }

    /// Refuses a body that says that it is too large, before it is read.
    fn check_length(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length = length.and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.remote.max_body_bytes() as u64) {
            return Err(self.too_large());
        }
        Ok(())
    }

    async fn read(&self, mut body: Incoming) -> Result<Bytes, Refusal> {
        let mut held = Held { of: &self.unfinished, bytes: 0 };
        let mut first = Bytes::new();
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let message = format!("the body can't be read: {error}");
                Refusal::new(StatusCode::BAD_REQUEST, Code::BadRequest, message)
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if held.bytes + data.len() > self.remote.max_body_bytes() {
                return Err(self.too_large());
            }
            if !held.add(data.len()) {
                let message = "too many bodies are arriving: try again later";
                return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, Code::QueueFull, message));
            }
            // Nearly always there is but one piece, which needs no copy.
            if first.is_empty() {
                first = data;
                continue;
            }
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
        Ok(if whole.is_empty() { first } else { whole.into() })
    }

    fn too_large(&self) -> Refusal {
        let limit = self.remote.max_body_bytes();
        let message = format!("the body is larger than max_body_bytes ({limit})");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::BodyTooLarge, message)
    }
}

/// Bytes of a body that has not arrived wholly.
struct Held<'a> {
    of: &'a AtomicUsize,
    bytes: usize,
}

impl Held<'_> {
    /// False if that is more than all bodies together may have.
    fn add(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.of.fetch_add(bytes, Ordering::Relaxed) + bytes <= UNFINISHED_LIMIT
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn with_json(status: StatusCode, body: Bytes, mut headers: HeaderMap) -> Response<Full<Bytes>> {
    headers.insert(CONTENT_TYPE, JSON);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn check_token(token: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let sent = headers.get(AUTHORIZATION).and_then(|sent| sent.to_str().ok());
    let sent = sent.and_then(|sent| {
        let (scheme, token) = sent.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let message = match sent {
        Some(sent) if same(token, sent) => return Ok(()),
        Some(_) => "the token is wrong",
        None => "this listener needs a token: send the header Authorization: Bearer TOKEN",
    };
    Err(Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message))
}

/// Compares secrets in a time that depends on the length of what was sent alone.
fn same(expected: &str, sent: &str) -> bool {
    let expected = expected.as_bytes();
    let mut differ = expected.len() ^ sent.len();
    for (at, byte) in sent.bytes().enumerate() {
        let other = expected.get(at % expected.len().max(1)).copied().unwrap_or(0);
        differ |= usize::from(black_box(byte ^ other));
    }
    differ == 0
}

/// How long the job may take: what the header says, or else the address.
fn timeout(uri: &Uri, headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let parameter = || {
        let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(name, _)| *name == TIMEOUT_PARAMETER).map(|(_, value)| value).next()
    };
    let text = match headers.get(TIMEOUT_HEADER) {
        Some(value) => Some(value.to_str().unwrap_or_default()),
        None => parameter(),
    };
    let Some(text) = text else { return Ok(None) };
    match text.trim().parse() {
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
        Err(_) => {
            let message = format!("{TIMEOUT_PARAMETER} is a whole number of milliseconds");
            Err(Refusal::new(StatusCode::BAD_REQUEST, Code::BadRequest, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        for (code, status) in [
            (Code::BadRequest, 400),
            (Code::Unauthorized, 401),
            (Code::Poisoned, 422),
            (Code::QueueFull, 429),
            (Code::HandlerError, 500),
            (Code::WorkerLost, 502),
            (Code::Draining, 503),
            (Code::Timeout, 504),
            (Code::QueueTimeout, 504),
        ] {
            assert_eq!(status_of(code, code.may_have_run()).as_u16(), status, "{code}");
        }
        assert_eq!(status_of(Code::BodyTooLarge, false).as_u16(), 413);
        assert_eq!(status_of(Code::BodyTooLarge, true).as_u16(), 500);
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same("abc", "abc"));
        for wrong in ["", "ab", "abcabc", "abd", "abcd"] {
            assert!(!same("abc", wrong), "{wrong}");
        }
    }
}
