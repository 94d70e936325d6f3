"""Shipping: from journals to the store, at its own pace."""

from flowledger.shipping.shipper import Shipper, start_shipping

__all__ = ["Shipper", "start_shipping"]
