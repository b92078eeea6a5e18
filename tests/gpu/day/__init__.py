"""What tests/gpu/first_contact is made of."""
