//! What a node remembers about others by its owner's word: contacts, and peers added at run time.

use super::MeshNode;
use crate::{
    api::{ApiError, Contact, Known, Target, check_contact_name},
    error::MeshError,
    storage::{LocalOp, LocalOutcome, Namespace, PageLimit, ask_local},
    transport::TransportAddr,
    wire::Address,
};

impl MeshNode {
    pub(super) async fn kv(&self, op: LocalOp) -> Result<LocalOutcome, MeshError> {
        Ok(self.kv_ops(vec![op]).await?.pop().unwrap_or(LocalOutcome::Done))
    }

    pub(super) async fn kv_ops(&self, ops: Vec<LocalOp>) -> Result<Vec<LocalOutcome>, MeshError> {
        let answer =
            ask_local(&*self.0.store, ops).map_err(|reason| MeshError::Refused(reason.to_string()))?;
        Ok(answer.await?)
    }

    pub(super) async fn kv_all(&self, namespace: Namespace) -> Result<Vec<(Vec<u8>, Vec<u8>)>, MeshError> {
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let op = LocalOp::KvPage { namespace, after, limit: PageLimit::default() };
            let LocalOutcome::Values(page) = self.kv(op).await? else { return Ok(rows) };
            rows.extend(page.rows);
            after = page.next;
            if after.is_none() {
                return Ok(rows);
            }
        }
    }

    pub(super) async fn remember_peer(&self, url: &TransportAddr) -> Result<(), MeshError> {
        let put = LocalOp::KvPut {
            namespace: Namespace::Peer,
            key: url.to_string().into_bytes(),
            value: Vec::new(),
        };
        self.kv(put).await.map(|_| ())
    }

    pub(super) async fn forget_peer(&self, url: &TransportAddr) -> Result<(), MeshError> {
        let remove = LocalOp::KvRemove { namespace: Namespace::Peer, key: url.to_string().into_bytes() };
        self.kv(remove).await.map(|_| ())
    }

    /// Gives an address a name.
    ///
    /// # Errors
    /// A name that could be taken for an address; the store.
    pub async fn add_contact(&self, name: &str, address: Address) -> Result<Contact, ApiError> {
        check_contact_name(name)?;
        let before = self.contact_address(name).await.map_err(ApiError::failed)?;
        let mut ops = vec![
            LocalOp::KvPut {
                namespace: Namespace::Contact,
                key: name.as_bytes().to_vec(),
                value: address.0.to_vec(),
            },
            LocalOp::KvPut { namespace: Namespace::Known, key: address.0.to_vec(), value: Vec::new() },
        ];
        if let Some(before) = before.filter(|before| *before != address) {
            ops.extend(self.forget_known(before, name).await.map_err(ApiError::failed)?);
        }
        self.kv_ops(ops).await.map_err(ApiError::failed)?;
        Ok(Contact { name: name.to_owned(), address, public_key: None })
    }

    /// All contacts by name.
    ///
    /// # Errors
    /// The store.
    pub async fn contacts(&self) -> Result<Vec<Contact>, MeshError> {
        let rows = self.kv_all(Namespace::Contact).await?;
        let contacts = rows.into_iter().filter_map(|(key, value)| {
            let name = String::from_utf8(key).ok()?;
            let address = Address(value.as_slice().try_into().ok()?);
            Some(Contact { name, address, public_key: None })
        });
        Ok(contacts.collect())
    }

    /// Forgets a contact; true where there was one.
    ///
    /// # Errors
    /// The store.
    pub async fn remove_contact(&self, name: &str) -> Result<bool, MeshError> {
        let Some(address) = self.contact_address(name).await? else { return Ok(false) };
        let mut ops =
            vec![LocalOp::KvRemove { namespace: Namespace::Contact, key: name.as_bytes().to_vec() }];
        ops.extend(self.forget_known(address, name).await?);
        Ok(matches!(self.kv_ops(ops).await?.first(), Some(LocalOutcome::Done)))
    }

    async fn contact_address(&self, name: &str) -> Result<Option<Address>, MeshError> {
        let get = LocalOp::KvGet { namespace: Namespace::Contact, key: name.as_bytes().to_vec() };
        let LocalOutcome::Value(Some(value)) = self.kv(get).await? else { return Ok(None) };
        Ok(value.as_slice().try_into().ok().map(Address))
    }

    /// What makes an address a stranger again that loses `name`, unless it has another.
    async fn forget_known(&self, address: Address, name: &str) -> Result<Option<LocalOp>, MeshError> {
        let contacts = self.contacts().await?;
        let has_another = contacts.iter().any(|c| c.address == address && c.name != name);
        let forget = LocalOp::KvRemove { namespace: Namespace::Known, key: address.0.to_vec() };
        Ok((!has_another).then_some(forget))
    }

    /// Destinations that `target` may mean, the first of them not below `first`.
    async fn announced_from(&self, first: Address, target: &Target) -> Result<Vec<Address>, MeshError> {
        let (mut announced, mut from) = (Vec::new(), Some(first));
        while let Some(at) = from {
            let page = self.routes_from(at).await?;
            announced.extend(page.rows.iter().map(|line| line.route.destination));
            from = page.next.filter(|next| target.may_mean(next));
        }
        Ok(announced)
    }

    /// The address a person means. `announced` lets a prefix name any node heard of.
    pub(super) async fn resolve(&self, text: &str, announced: bool) -> Result<Address, ApiError> {
        let target = Target::parse(text)?;
        if let Target::Address(address) = target {
            return Ok(address);
        }
        let contacts: Vec<_> = self
            .contacts()
            .await
            .map_err(ApiError::failed)?
            .into_iter()
            .map(|c| (c.name, c.address))
            .collect();
        let links: Vec<_> =
            self.peers().await.map_err(ApiError::failed)?.into_iter().map(|p| p.address).collect();
        let announced = match target.first() {
            Some(first) if announced => {
                self.announced_from(first, &target).await.map_err(ApiError::failed)?
            }
            _ => Vec::new(),
        };
        target.resolve(&Known { contacts: &contacts, links: &links, announced: &announced })
    }
}
