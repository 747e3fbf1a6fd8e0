"""
One connection to an agent, and the next one: protocol, factory, session and lanes.

Programs get two classes of this folder, `SerfProtocol` and `SerfClientFactory`. Their documented methods are a promise
to programs; what only the package calls on them begins with an underscore. All other classes are the package's own,
and their names say nothing about that.
"""
