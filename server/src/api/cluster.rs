//! Questions to the whole cluster, and to extensions of the server.

use starling_proto::api::{
    ChannelInfo, ChannelsRequest, ChannelsResult, InfoRequest, InfoResult, Metrics, NodeResult, RpcRequest, RpcResult,
};

use super::{Api, Method, refused};
use crate::{
    error::ApiError,
    node::{Counts, NodeInfo, SurveyError},
};

impl Api {
    /// Lists channels with subscribers on any node; `pattern` is a glob over the whole name. No paging.
    ///
    /// # Errors
    ///
    /// 100: the pattern is not a glob.
    pub async fn channels(&self, request: ChannelsRequest) -> Result<ChannelsResult, ApiError> {
        let pattern = (!request.pattern.is_empty()).then_some(request.pattern.as_str());
        match self.node.channels(pattern).await {
            Ok(counts) => {
                let described = |(name, num_clients)| (name, ChannelInfo { num_clients });
                Ok(ChannelsResult { channels: counts.into_iter().map(described).collect() })
            }
            Err(SurveyError::BadPattern) => {
                let why = "the pattern is not a glob";
                Err(refused(Method::Channels, &request.pattern, ApiError::Internal, why, "pattern"))
            }
        }
    }

    /// Describes every node of the cluster. Never fails.
    pub async fn info(&self, _: InfoRequest) -> Result<InfoResult, ApiError> {
        Ok(InfoResult { nodes: self.node.info().await.into_iter().map(node_result).collect() })
    }

    /// Calls a method of an extension; there are none.
    ///
    /// # Errors
    ///
    /// 107: no method named. 104: always else.
    pub fn rpc(&self, request: RpcRequest) -> Result<RpcResult, ApiError> {
        if request.method.is_empty() {
            return Err(refused(Method::Rpc, "", ApiError::BadRequest, "the request names no method", "method"));
        }
        Err(refused(Method::Rpc, "", ApiError::NotFound, "this server has no methods of its own", "method"))
    }
}

fn node_result(node: NodeInfo) -> NodeResult {
    let NodeInfo { uid, name, version, counts, uptime_s, metrics } = node;
    let Counts { clients, users, channels, subscriptions } = counts;
    NodeResult {
        uid,
        name,
        version,
        num_clients: clients,
        num_users: users,
        num_channels: channels,
        uptime: uptime_s,
        metrics: metrics.map(|(interval, items)| Metrics { interval, items }),
        process: None,
        num_subs: subscriptions,
    }
}
