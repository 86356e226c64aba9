//! `rules`, `alerts` and `alertmanagers`: shown by whoever evaluates rules in this process, or valid
//! emptiness.

use axum::extract::State;
use axum::response::Response;
use model::quote::quote;
use serde_json::json;

use crate::api::admission::call::Call;
use crate::api::error::ApiError;
use crate::api::response::{self, Warnings};
use crate::api::state::ApiState;

/// `GET /api/v1/rules`
pub async fn rules(State(state): State<ApiState>, call: Call) -> Result<Response, ApiError> {
    match &state.config().rules {
        Some(rules) => Ok(written(&rules.rules(&call.tenant, &call.form)?)),
        None => {
            let kind = call.form.get("type").to_lowercase();
            if !matches!(kind.as_str(), "" | "alert" | "record") {
                return Err(ApiError::parameter("type", format!("not supported value {}", quote(&kind))));
            }
            Ok(response::small(&json!({ "groups": [] })))
        }
    }
}

/// `GET /api/v1/alerts`
pub async fn alerts(State(state): State<ApiState>, call: Call) -> Response {
    match &state.config().rules {
        Some(rules) => written(&rules.alerts(&call.tenant)),
        None => response::small(&json!({ "alerts": [] })),
    }
}

/// `GET /api/v1/alertmanagers`
pub async fn alertmanagers(State(state): State<ApiState>) -> Response {
    match &state.config().rules {
        Some(rules) => written(&rules.alertmanagers()),
        None => response::small(&json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] })),
    }
}

/// A success around data that is JSON already.
fn written(data: &str) -> Response {
    response::success(&Warnings::default(), |out| out.extend_from_slice(data.as_bytes()))
}
