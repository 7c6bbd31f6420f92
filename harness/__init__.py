"""What tests and benches share: small real models in the hubs' layouts, and the fault stand."""
