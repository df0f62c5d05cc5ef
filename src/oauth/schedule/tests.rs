//! The schedule in virtual time.

use proptest::prelude::*;

use super::*;
use crate::{
    config::Secret,
    oauth::{credentials::ClientCredentials, store::StoredToken},
    stats::Reason,
};

const MARGIN: Duration = Duration::from_secs(60);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn unavailable(retry_after: Option<f64>) -> TokenError {
    TokenError::Unavailable {
        reason: Reason::ServerError,
        what: String::new(),
        retry_after: retry_after.map(seconds),
    }
}

fn refused() -> TokenError {
    TokenError::InvalidGrant(String::new())
}

fn missing() -> TokenError {
    TokenError::RefreshTokenMissing(String::new())
}

fn credentials(refresh_token: &str) -> Credentials {
    Credentials {
        client: ClientCredentials {
            id: Secret::new("id"),
            secret: None,
        },
        token: StoredToken {
            refresh_token: Secret::new(refresh_token),
            configured_hash: None,
            obtained_at: None,
        },
    }
}

fn empty() -> RefreshSchedule {
    RefreshSchedule::new(MARGIN)
}

impl RefreshSchedule {
    fn succeed(&mut self, now: Duration, lifetime: f64) {
        let token = AccessToken::new("token").expect("it can be sent in a header");
        self.succeeded(now, token, seconds(lifetime));
    }

    fn is_due(&self, now: Duration) -> bool {
        now >= self.next_refresh_at()
    }

    fn demand(&self, now: f64) -> &'static str {
        match self.on_demand(seconds(now), None) {
            OnDemand::Use(_) => "use",
            OnDemand::Refresh => "refresh",
            OnDemand::Fail(_) => "refuse",
        }
    }
}

/// Returns a schedule that received a token with this lifetime at time 0.
fn with_token(lifetime: f64) -> RefreshSchedule {
    let mut schedule = empty();
    assert!(schedule.is_due(Duration::ZERO));
    schedule.succeed(Duration::ZERO, lifetime);
    schedule
}

#[test]
fn a_token_is_renewed_ahead_of_its_end_by_the_margin_or_half_its_lifetime() {
    for (lifetime, renewed) in [(14_400.0, 14_340.0), (100.0, 50.0), (2.0, 1.0)] {
        let schedule = with_token(lifetime);
        assert_eq!(schedule.next_refresh_at(), seconds(renewed));
    }
}

#[test]
fn a_token_in_its_last_second_is_used_only_if_no_newer_one_can_be_had() {
    for (lifetime, stale) in [(14_400.0, 14_399.0), (3.0, 2.0), (1.0, 0.5)] {
        let mut schedule = with_token(lifetime);
        assert_eq!(schedule.demand(stale - 0.01), "use");
        assert_eq!(schedule.demand(stale), "refresh");
        schedule.failed(seconds(stale), refused(), 0.0);
        assert_eq!(schedule.demand(lifetime - 0.01), "use");
        assert_eq!(schedule.demand(lifetime), "refuse");
        assert!(!schedule.has_valid_token(seconds(lifetime)));
    }
}

#[test]
fn a_rejected_token_is_renewed_at_once_and_used_by_others_until_there_is_a_newer_one() {
    let mut schedule = with_token(14_400.0);
    let OnDemand::Use(rejected) = schedule.on_demand(seconds(1.0), None) else {
        unreachable!("it is valid");
    };
    schedule.mark_rejected(&rejected);
    assert!(schedule.is_due(seconds(1.0)));
    assert!(!schedule.has_valid_token(seconds(1.0)));
    assert_eq!(schedule.demand(1.0), "use", "by callers of other routes");
    let on_demand = schedule.on_demand(seconds(1.0), Some(&rejected));
    assert!(matches!(on_demand, OnDemand::Refresh));
    schedule.failed(seconds(2.0), unavailable(None), 0.0);
    let on_demand = schedule.on_demand(seconds(2.1), Some(&rejected));
    assert!(matches!(on_demand, OnDemand::Use(_)), "there is no other");
    schedule.succeed(seconds(3.0), 14_400.0);
    schedule.mark_rejected(&rejected);
    assert!(
        !schedule.is_due(seconds(4.0)),
        "the newer one is not rejected"
    );
}

#[test]
fn failures_double_the_backoff_up_to_a_minute_and_success_resets_it() {
    let mut schedule = empty();
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for attempt in 0..9 {
        assert!(schedule.is_due(now));
        let is_new = schedule.failed(now, unavailable(None), 1.0);
        assert_eq!(is_new, attempt == 0);
        assert_eq!(schedule.demand(now.as_secs_f64()), "refuse");
        let next = schedule.next_refresh_at();
        waits.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    schedule.succeed(now, 1.0);
    now += seconds(1.0);
    schedule.failed(now, unavailable(None), 1.0);
    assert_eq!(schedule.next_refresh_at(), now + MIN_BACKOFF);
}

#[test]
fn the_backoff_is_spread_over_its_upper_half() {
    for (random, wait) in [(0.0, 30.0), (0.5, 45.0), (1.0, 60.0)] {
        let mut schedule = empty();
        for _ in 0..20 {
            schedule.failed(Duration::ZERO, unavailable(None), random);
        }
        assert_eq!(schedule.next_refresh_at(), seconds(wait));
    }
}

#[test]
fn retry_after_is_obeyed_even_if_credentials_change() {
    let mut schedule = empty();
    schedule.failed(Duration::ZERO, unavailable(Some(90.0)), 0.0);
    schedule.credentials_found(&[credentials("new")]);
    assert_eq!(schedule.next_refresh_at(), seconds(90.0));
}

#[test]
fn credentials_that_were_not_refused_are_tried_at_once() {
    let [old, second, new] = ["old", "second", "new"].map(credentials);
    let found = [old.clone(), second.clone()];
    let mut schedule = empty();
    assert_eq!(schedule.first_not_refused(&found), Some(&old));
    schedule.mark_refused(&old);
    assert_eq!(schedule.first_not_refused(&found), Some(&second));
    schedule.mark_refused(&second);
    assert_eq!(schedule.first_not_refused(&found), None);
    schedule.failed(Duration::ZERO, refused(), 0.0);
    schedule.credentials_found(&found);
    assert_eq!(schedule.next_refresh_at(), REFUSED_RETRY);
    schedule.credentials_found(&[old.clone(), new]);
    assert!(schedule.is_due(seconds(1.0)));
    schedule.succeed(seconds(1.0), 3600.0);
    assert_eq!(schedule.first_not_refused(&found), Some(&old), "forgotten");
}

#[test]
fn without_credentials_nothing_is_requested_until_some_are_found() {
    let mut schedule = empty();
    schedule.failed(Duration::ZERO, missing(), 0.0);
    assert!(!schedule.is_due(seconds(1e6)));
    assert_eq!(schedule.demand(1e6), "refuse");
    schedule.credentials_found(&[credentials("new")]);
    assert!(schedule.is_due(Duration::ZERO));
}

#[test]
fn only_another_kind_of_failure_is_new() {
    let mut schedule = empty();
    assert!(schedule.failed(Duration::ZERO, unavailable(None), 0.0));
    assert!(!schedule.failed(Duration::ZERO, unavailable(Some(5.0)), 0.0));
    assert!(schedule.failed(Duration::ZERO, refused(), 0.0));
    assert!(schedule.failed(Duration::ZERO, missing(), 0.0));
    assert_eq!(schedule.last_error(), Some(&missing()));
}

/// An event in the life of a schedule.
#[derive(Debug, Clone)]
enum Event {
    TimePasses(f64),
    /// The result of a request, which is sent only if one is due: a lifetime or an error.
    Reply(Result<f64, TokenError>),
    Rejection,
    NewCredentials,
}

fn event() -> impl Strategy<Value = Event> {
    let reply = prop_oneof![
        2 => (0.01..5.0).prop_map(Ok),
        2 => (0.01..20_000.0).prop_map(Ok),
        2 => Just(Err(unavailable(None))),
        1 => (0.0..4000.0).prop_map(|wait| Err(unavailable(Some(wait)))),
        2 => Just(Err(refused())),
    ];
    prop_oneof![
        4 => (0.0..2.0).prop_map(Event::TimePasses),
        1 => (0.0..1000.0).prop_map(Event::TimePasses),
        4 => reply.prop_map(Event::Reply),
        1 => Just(Event::Rejection),
        1 => Just(Event::NewCredentials),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn valid_tokens_are_used_and_refused_credentials_are_rarely_sent_whatever_happens(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut schedule = empty();
        let mut now = Duration::ZERO;
        let mut expires_at = Duration::ZERO;
        // When the current credentials were refused.
        let mut refused_at: Option<Duration> = None;
        for event in events {
            match event {
                Event::TimePasses(time) => now += seconds(time),
                Event::Reply(reply) if schedule.is_due(now) => {
                    prop_assert!(refused_at.is_none_or(|at| now >= at + REFUSED_RETRY));
                    refused_at = matches!(reply, Err(TokenError::InvalidGrant(_))).then_some(now);
                    match reply {
                        Ok(lifetime) => {
                            schedule.succeed(now, lifetime);
                            expires_at = now + seconds(lifetime);
                        }
                        Err(error) => drop(schedule.failed(now, error, 0.5)),
                    }
                }
                Event::Reply(_) => {}
                Event::Rejection => {
                    if let OnDemand::Use(token) = schedule.on_demand(now, None) {
                        schedule.mark_rejected(&token);
                    }
                }
                Event::NewCredentials => {
                    schedule.credentials_found(&[credentials("new")]);
                    refused_at = None;
                }
            }
            match schedule.on_demand(now, None) {
                OnDemand::Use(_) => prop_assert!(now < expires_at, "an expired token"),
                OnDemand::Refresh => prop_assert!(schedule.is_due(now), "a caller would spin"),
                OnDemand::Fail(_) => prop_assert!(now >= expires_at, "a valid token"),
            }
        }
        // The next request comes, and not after the end of the token.
        let latest = match schedule.last_error() {
            Some(_) => now + seconds(4000.0),
            None => expires_at.max(now),
        };
        prop_assert!(schedule.next_refresh_at() <= latest);
    }
}
