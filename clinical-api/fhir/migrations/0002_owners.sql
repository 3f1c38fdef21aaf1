-- Whose a resource is, by the resource: asked of every row that someone sees who does not see all patients.
CREATE INDEX fhir_pc_rid ON fhir_pc (tenant, rid, pt) WHERE code = 0;
