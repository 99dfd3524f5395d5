//! One direction of a pair, used by one caller at a time.

/// A half that several tasks or threads share.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct Turn<T>(tokio::sync::Mutex<T>);

#[cfg(feature = "tokio")]
impl<T> Turn<T> {
    pub(crate) fn new(half: T) -> Self {
        Self(tokio::sync::Mutex::new(half))
    }

    /// `None` while another caller has its turn.
    pub(crate) fn try_take(&self) -> Option<tokio::sync::MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }

    pub(crate) fn take_blocking(&self) -> tokio::sync::MutexGuard<'_, T> {
        match self.0.try_lock() {
            Ok(half) => half,
            Err(_) => self.0.blocking_lock(),
        }
    }

    pub(crate) async fn take(&self) -> tokio::sync::MutexGuard<'_, T> {
        match self.0.try_lock() {
            Ok(half) => half,
            Err(_) => self.0.lock().await,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

/// A half that several threads share.
#[cfg(not(feature = "tokio"))]
#[derive(Debug)]
pub(crate) struct Turn<T>(std::sync::Mutex<T>);

#[cfg(not(feature = "tokio"))]
impl<T> Turn<T> {
    pub(crate) fn new(half: T) -> Self {
        Self(std::sync::Mutex::new(half))
    }

    /// `None` while another caller has its turn.
    pub(crate) fn try_take(&self) -> Option<std::sync::MutexGuard<'_, T>> {
        use std::sync::TryLockError;
        match self.0.try_lock() {
            Ok(half) => Some(half),
            // A caller's panic leaves a half as it would leave an owned one: usable.
            Err(TryLockError::Poisoned(half)) => Some(half.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn take_blocking(&self) -> std::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
